"""The rows of a sweep as a picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from free.bench.grid_table import label, varied

try:
    from matplotlib.figure import Figure
except ImportError as error:
    raise ImportError("the plot needs matplotlib: pip install 'free-dit[train]'") from error

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["draw"]

Row = Mapping[str, Any]

_NAMES = {
    "rounds": "rounds an image",
    "examined_acceptance": "share of the examined drafts accepted",
    "tv_bound": "tv_bound",
    "tv_estimate": "tv_estimate",
    "frechet": "Frechet distance",
    "accuracy": "named as asked for",
}
#: What can vary along the horizontal axis.
_AXES = ("stochasticity", "steps", "window", "variance")
#: Against what varies; the frontier of relaxations instead has rounds on every vertical axis.
_AGAINST_AXIS = ("examined_acceptance", "rounds", "frechet", "accuracy")
_FRONTIER = ("tv_bound", "tv_estimate", "frechet", "accuracy")


def draw(rows: Sequence[Row]) -> Figure:
    """Four panels, with 95 % intervals.

    With several relaxations: rounds against their bound, their estimate, and quality, a line for
    each rule. Else acceptance, rounds and quality against the stochasticity, the steps, the window
    or the variance, whichever varies first in this order, a line for each combination of the
    others.
    """
    names = varied([row["setting"] for row in rows])
    figure = Figure(figsize=(11, 8), layout="constrained")
    panels = figure.subplots(2, 2).flatten()
    if "relax" in names:
        _frontier(panels, rows, names)
    else:
        _against_axis(panels, rows, names)
    for axes in panels:
        axes.grid(alpha=0.3)
        if axes.get_legend_handles_labels()[0]:
            axes.legend(fontsize="x-small")
    return figure


def _frontier(panels: Sequence[Axes], rows: Sequence[Row], names: Sequence[str]) -> None:
    others = [name for name in names if name != "relax"]
    lines: dict[str, list[Row]] = {}
    for row in rows:
        setting = row["setting"]
        if setting["window"] == 1 or setting["relax"] == "none":
            continue
        rule, _, amount = setting["relax"].partition(":")
        budget = ", budget " + amount.partition(":")[2] if ":" in amount else ""
        same = label(setting, others)
        name = ", ".join(part for part in (rule + budget, same) if part)
        lines.setdefault(name, []).append(row)
        # Each line begins at the exact sampler of the same ways.
        if len(lines[name]) == 1:
            exact = {**setting, "relax": "none", "uncertainty": "discrepancy"}
            lines[name][:0] = [row for row in rows if row["setting"] == exact]
    for axes, x in zip(panels, _FRONTIER, strict=True):
        for name, own in lines.items():
            own = sorted(own, key=lambda row: -row["rounds"]["value"])
            _line(axes, own, [_figure(row, x) for row in own], "rounds", name)
        plain = [_figure(row, x) for row in rows if row["setting"]["window"] == 1]
        if x in ("frechet", "accuracy") and len(plain) == 1 and plain[0] is not None:
            axes.axvline(plain[0]["value"], color="0.5", ls="--", label="sequential")
            axes.axvspan(plain[0]["low"], plain[0]["high"], color="0.92", zorder=0)
        axes.set(xlabel=_NAMES[x], ylabel=_NAMES["rounds"])
    panels[0].set_xscale("symlog", linthresh=1.0)
    panels[0].axvline(1.0, color="0.5", lw=0.8, label="from here on the bound says nothing")


def _against_axis(panels: Sequence[Axes], rows: Sequence[Row], names: Sequence[str]) -> None:
    axis = next((name for name in _AXES if name in names), "window")
    others = [name for name in names if name != axis]
    lines: dict[str, list[Row]] = {}
    for row in rows:
        lines.setdefault(label(row["setting"], others), []).append(row)
    for axes, y in zip(panels, _AGAINST_AXIS, strict=True):
        for name, own in lines.items():
            if own[0]["setting"]["window"] == 1 and y == "rounds" and len(lines) > 1:
                continue  # all its steps: the others would be a line at the bottom
            if axis != "variance":
                own = sorted(own, key=lambda row: row["setting"][axis])
            xs = [{"value": row["setting"][axis], "low": None} for row in own]
            _line(axes, own, xs, y, name)
        axes.set(xlabel=axis, ylabel=_NAMES[y])


def _figure(row: Row, name: str) -> dict[str, Any] | None:
    """A figure of a row with its interval, wherever it stands; None if it was not taken."""
    found = (row["quality"] or {}).get(name) if name in ("frechet", "accuracy") else row[name]
    return {"value": found, "low": None} if isinstance(found, float) else found


def _line(
    axes: Axes, rows: Sequence[Row], xs: Sequence[dict[str, Any] | None], y: str, name: str
) -> None:
    """One line with error bars; rows without one of the two figures are left out."""
    pairs = [(x, _figure(row, y)) for x, row in zip(xs, rows, strict=True)]
    points = [(x, found) for x, found in pairs if x is not None and found is not None]
    if not points:
        return

    def values(figures: Sequence[dict[str, Any]]) -> tuple[list[Any], list[list[float]]]:
        held = [figure["low"] is not None for figure in figures]
        bars = [
            [f["value"] - f["low"] if h else 0.0 for f, h in zip(figures, held, strict=True)],
            [f["high"] - f["value"] if h else 0.0 for f, h in zip(figures, held, strict=True)],
        ]
        return [figure["value"] for figure in figures], bars

    (across, x_bars), (up, y_bars) = (values(part) for part in zip(*points, strict=True))
    x_errors = x_bars if any(map(any, x_bars)) else None
    axes.errorbar(
        across, up, y_bars, x_errors, marker="o", ms=3.5, lw=1, elinewidth=0.7, capsize=2,
        label=name or None,
    )  # fmt: skip
