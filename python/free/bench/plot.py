"""What ``free bench`` measured as a picture: cost against quality, or bars."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

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

#: A line of the benchmark as JSON has it, :meth:`free.bench.lines.Line.to_dict`.
Row = Mapping[str, Any]

#: Both costs of an image, in words.
_COSTS: tuple[tuple[str, Callable[[Row], float]], ...] = (
    ("seconds an image", lambda row: row["timing"]["median"]),
    ("teacher rounds an image, one after the other", lambda row: row["rounds"]),
)
#: More curves could not be told apart: those of one law have the same heights.
CURVES = ("plain", "ddim", "paper", "trained", "recycled")
_QUALITY = {
    "frechet": "Frechet distance by {} (lower is better)",
    "accuracy": "share named as asked for by {} (higher is better)",
}


def plot(path: Path, rows: Sequence[Row], title: str, network: str) -> None:
    """Write a picture: a curve over the numbers of steps for each sampler.

    In a single number of steps, bars of all. Curves are of the methods :data:`CURVES`, each with
    the window that is fastest in most steps, and with the automatic one. Quality is the rows'
    Frechet distance where all have one, else the accuracy, by ``network``; a ValueError if there
    are several numbers of steps, and neither.
    """
    steps = sorted({row["steps"] for row in rows})
    if len(steps) == 1:
        figure = _bars(rows)
    else:
        name = next((n for n in _QUALITY if all(n in row["figures"] for row in rows)), None)
        if name is None:
            raise ValueError("--plot needs figures of quality of every row: --quality, --reference")
        figure = _curves(_fastest(rows, steps[-1]), name, network)
    figure.suptitle(title, fontsize=9.5, color="#666666", x=0.01, ha="left")
    save(figure, path)


def _fastest(rows: Sequence[Row], steps: int) -> list[Row]:
    """The rows of one sampler for each method, or two where one has an automatic window."""
    best: dict[tuple[str, bool], Row] = {}
    for row in sorted(rows, key=lambda row: -row["timing"]["median"]):
        if row["steps"] == steps and row["method"] in CURVES:
            best[row["method"], row["window"] == "auto"] = row
    names = {row["name"] for row in best.values()}
    return [row for row in rows if row["name"] in names]


def _colour(row: Row) -> str:
    return COLOURS["auto" if row["window"] == "auto" else row["method"]]


def _curves(rows: Sequence[Row], name: str, network: str) -> Any:
    """Quality against each cost; points of one law and so many steps are joined in grey."""
    figure, axes = panels(2, sharey=True)
    samplers: dict[str, list[Row]] = {}
    laws: dict[tuple[int, str], list[Row]] = {}
    for row in sorted(rows, key=lambda row: row["steps"]):
        samplers.setdefault(row["name"], []).append(row)
        laws.setdefault((row["steps"], row["law"]), []).append(row)
    for axis, (words, cost) in zip(axes, _COSTS, strict=True):
        for same in laws.values():
            value = same[0]["figures"][name]["value"]
            costs = [cost(row) for row in same]
            axis.plot([min(costs), max(costs)], [value, value], color=PALE, linewidth=1, zorder=1)
        for sampler, curve in samplers.items():
            values, bars = error_bars([row["figures"][name] for row in curve])
            axis.errorbar(
                [cost(row) for row in curve],
                values,
                bars if sampler == PLAIN else None,
                color=_colour(curve[0]),
                ecolor=PALE,
                elinewidth=1,
                marker="o",
                markersize=5,
                zorder=2,
            )
        axis.set_xscale("log")
        number_ticks(axis.xaxis, _round_numbers(*axis.get_xlim()))
        name_axes(axis, words, _QUALITY[name].format(network) if axis is axes[0] else "")
        _name_steps(axis, samplers[PLAIN], cost, name)
        ends = [curve[-1] for curve in reversed(samplers.values())]
        right = max(cost(row) for row in ends)
        heights = [row["figures"][name]["value"] for row in ends]
        label_ends(
            axis,
            [
                Label(right, height, row["label"], _colour(row))
                for row, height in zip(ends, heights, strict=True)
            ],
        )
    return figure


def _name_steps(axis: Any, curve: Sequence[Row], cost: Callable[[Row], float], name: str) -> None:
    """Write the numbers of steps above the plain sampler's points."""
    for row in curve:
        axis.annotate(
            f"{row['steps']} steps" if row is curve[0] else str(row["steps"]),
            (cost(row), row["figures"][name]["value"]),
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


def _bars(rows: Sequence[Row]) -> Any:
    """Both costs of each sampler, the plain one's as a line to compare with."""
    figure, axes = panels(2, height=1.0 + 0.27 * len(rows), sharey=True)
    plain = next(row for row in rows if row["name"] == PLAIN)
    for axis, (words, cost) in zip(axes, _COSTS, strict=True):
        places = range(len(rows))
        axis.barh(places, [cost(row) for row in rows], color=[_colour(row) for row in rows])
        axis.axvline(cost(plain), color=COLOURS["plain"], linewidth=0.8, zorder=0)
        for place, row in zip(places, rows, strict=True):
            axis.annotate(f"{cost(row):.3g}", (cost(row), place), xytext=(4, 0),
                          textcoords="offset points", va="center", fontsize=8,
                          bbox={"facecolor": "white", "edgecolor": "none", "pad": 1})  # fmt: skip
        axis.set_yticks(places, [row["label"] for row in rows])
        name_axes(axis, words, "", grid="x")
    axes[0].invert_yaxis()
    return figure
