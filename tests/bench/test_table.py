"""The tables and the picture of a benchmark, of lines that were not measured."""

from pathlib import Path
from typing import Any

import pytest

from free.bench import plot as module
from free.bench.lines import Line
from free.bench.plot import plot
from free.bench.rows import ROWS
from free.bench.table import markdown, text
from free.bench.timing import Timing
from free.evaluation import Figure

STEPS = (10, 1000)


def _lines() -> list[Line]:
    """Every row, with numbers as wide as they become."""
    lines = []
    for steps in STEPS:
        for place, row in enumerate(ROWS):
            counts: dict[str, Any] = {
                "parallel_efficiency": 21.27, "tv_bound": 0.049 if row.relaxation else 0.0,
                "rounds_by_sample": [steps - place], "teacher_rows": 15_000, "samples": 1,
                "proposed": 0,
            }  # fmt: skip
            report: Any = type("Counts", (), counts)()
            share, distance = Figure(0.95, 0.9, 1.0), Figure(491.4, 475.9, 506.9)
            shares = dict.fromkeys(("accuracy", "precision", "recall"), share)
            figures = shares | {"frechet": distance}
            name = "sde-dpmsolver++" if row.lossless else "sde-dpmsolver++, relaxed"
            timing = Timing(100.0 + place, 10.0, 99.0, 6, 0, True)
            lines.append(Line(row, steps, name, report, timing, 1.0, {}, 12_345_000_000, figures))
    return lines


def test_tables_fit_a_terminal() -> None:
    lines = _lines()
    shown = text(lines).splitlines()
    assert len(shown) == (1 + 2 * len(STEPS)) + 1 + (1 + len(lines))  # laws, samplers
    assert max(map(len, shown)) <= 100
    assert shown[1].split()[:4] == ["10", "sde-dpmsolver++", "95.0", "[90.0,"]
    assert markdown(lines).count("\n| ---") == 2
    assert "named right" not in text([line._replace(figures={}) for line in lines])


def _row(line: Line) -> dict[str, Any]:
    """What of a line's JSON a picture shows."""
    return {
        "name": line.row.name, "method": line.row.method, "label": line.row.label,
        "steps": line.steps, "law": line.law, "window": line.row.window, "rounds": line.rounds,
        "timing": line.timing._asdict(),
        "figures": {name: vars(figure) for name, figure in line.figures.items()},
    }  # fmt: skip


def test_the_picture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One curve a method, of its fastest window; bars of all."""
    figures: list[Any] = []
    monkeypatch.setattr(module, "save", lambda figure, path: figures.append(figure))
    rows = [_row(line) for line in _lines()]
    plot(tmp_path / "x.png", rows, "title", "classifier")
    axes = figures[0].axes[0]
    names = {"plain sampler", "plain sampler, no noise", "the paper's FREE, W = 8",
             "FREE, W = 2", "FREE, automatic W", "no training, W = 2",
             "no training, automatic W"}  # fmt: skip
    assert {note.get_text() for note in axes.texts} == names | {"10 steps", "1000"}
    assert axes.get_xlabel() == "seconds an image"
    plot(tmp_path / "x.png", [row for row in rows if row["steps"] == 10], "title", "")
    assert len(figures[1].axes[0].patches) == len(ROWS)
    with pytest.raises(ValueError, match="--plot needs figures of quality of every row"):
        plot(tmp_path / "x.png", [row | {"figures": {}} for row in rows], "title", "")
