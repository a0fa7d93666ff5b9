"""What ``free bench`` measured as a picture: cost against quality, or bars."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from free.bench.lines import Line
from free.bench.rows import PLAIN
from free.bench.style import (
    COLOURS,
    PALE,
    Label,
    error_bars,
    label_ends,
    name_axes,
    number_ticks,
    panels,
    save,
)

#: Both costs of an image, in words.
_COSTS: tuple[tuple[str, Callable[[Line], float]], ...] = (
    ("seconds an image", lambda line: line.timing.median),
    ("teacher rounds an image, one after the other", lambda line: line.rounds),
)
#: More curves could not be told apart: those of one law have the same heights.
CURVES = ("plain", "ddim", "paper", "trained", "recycled")
_QUALITY = {
    "frechet": "Frechet distance by {} (lower is better)",
    "accuracy": "share named as asked for by {} (higher is better)",
}


def plot(path: Path, lines: Sequence[Line], title: str, network: str) -> None:
    """Write a picture: a curve over the numbers of steps for each sampler.

    In a single number of steps, bars of all. Curves are of the methods :data:`CURVES`, each with
    the window that is fastest in most steps, and with the automatic one. Quality is the lines'
    Frechet distance where all have one, else the accuracy, by ``network``; a ValueError if there
    are several numbers of steps, and neither.
    """
    steps = sorted({line.steps for line in lines})
    if len(steps) == 1:
        figure = _bars(lines)
    else:
        name = next((n for n in _QUALITY if all(n in line.figures for line in lines)), None)
        if name is None:
            raise ValueError("--plot needs figures of quality of every row: --quality, --reference")
        figure = _curves(_fastest(lines, steps[-1]), name, network)
    figure.suptitle(title, fontsize=9.5, color="#666666", x=0.01, ha="left")
    save(figure, path)


def _fastest(lines: Sequence[Line], steps: int) -> list[Line]:
    """The lines of one row for each method, or two where one of them has an automatic window."""
    best: dict[tuple[str, bool], Line] = {}
    for line in sorted(lines, key=lambda line: -line.timing.median):
        if line.steps == steps and line.row.method in CURVES:
            best[line.row.method, line.row.window == "auto"] = line
    names = {line.row.name for line in best.values()}
    return [line for line in lines if line.row.name in names]


def _colour(line: Line) -> str:
    return COLOURS["auto" if line.row.window == "auto" else line.row.method]


def _curves(lines: Sequence[Line], name: str, network: str) -> Any:
    """Quality against each cost; points of one law and so many steps are joined in grey."""
    figure, axes = panels(2, sharey=True)
    by_row: dict[str, list[Line]] = {}
    by_law: dict[tuple[int, str], list[Line]] = {}
    for line in sorted(lines, key=lambda line: line.steps):
        by_row.setdefault(line.row.name, []).append(line)
        by_law.setdefault((line.steps, line.law), []).append(line)
    for axis, (words, cost) in zip(axes, _COSTS, strict=True):
        for same in by_law.values():
            value = same[0].figures[name].value
            costs = [cost(line) for line in same]
            axis.plot([min(costs), max(costs)], [value, value], color=PALE, linewidth=1, zorder=1)
        for row, curve in by_row.items():
            values, bars = error_bars([vars(line.figures[name]) for line in curve])
            axis.errorbar(
                [cost(line) for line in curve],
                values,
                bars if row == PLAIN else None,
                color=_colour(curve[0]),
                ecolor=PALE,
                elinewidth=1,
                marker="o",
                markersize=5,
                zorder=2,
            )
        axis.set_xscale("log")
        low, high = axis.get_xlim()
        number_ticks(axis.xaxis, _round_numbers(low, high))
        name_axes(axis, words, _QUALITY[name].format(network) if axis is axes[0] else "")
        _name_steps(axis, by_row[PLAIN], cost, name)
        ends = [curve[-1] for curve in reversed(by_row.values())]
        right = max(cost(line) for line in ends)
        label_ends(
            axis,
            [
                Label(right, line.figures[name].value, line.row.label, _colour(line))
                for line in ends
            ],
        )
    return figure


def _name_steps(axis: Any, curve: Sequence[Line], cost: Callable[[Line], float], name: str) -> None:
    """Write the numbers of steps above the plain sampler's points."""
    for line in curve:
        axis.annotate(
            f"{line.steps} steps" if line is curve[0] else str(line.steps),
            (cost(line), line.figures[name].value),
            xytext=(3, 6),
            textcoords="offset points",
            ha="right",
            fontsize=8,
            color=COLOURS["plain"],
        )


def _round_numbers(low: float, high: float) -> list[float]:
    """1, 2 and 5 times the powers of ten between two numbers."""
    numbers = (part * 10.0**power for power in range(-4, 5) for part in (1, 2, 5))
    return [number for number in numbers if low <= number <= high]


def _bars(lines: Sequence[Line]) -> Any:
    """Both costs of each sampler, the plain one's as a line to compare with."""
    figure, axes = panels(2, height=1.0 + 0.27 * len(lines), sharey=True)
    plain = next(line for line in lines if line.row.name == PLAIN)
    for axis, (words, cost) in zip(axes, _COSTS, strict=True):
        places = range(len(lines))
        axis.barh(places, [cost(line) for line in lines], color=[_colour(line) for line in lines])
        axis.axvline(cost(plain), color=COLOURS["plain"], linewidth=0.8, zorder=0)
        for place, line in zip(places, lines, strict=True):
            axis.annotate(f"{cost(line):.3g}", (cost(line), place), xytext=(4, 0),
                          textcoords="offset points", va="center", fontsize=8)  # fmt: skip
        axis.set_yticks(places, [line.row.label for line in lines])
        name_axes(axis, words, "", grid="x")
    axes[0].invert_yaxis()
    return figure
