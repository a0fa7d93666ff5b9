"""The rows of a sweep as a picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from free.bench.grid_table import label, varied
from free.bench.style import error_bars, require_matplotlib

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
_AXES = ("stochasticity", "steps", "window", "variance", "law")
#: Against what varies; the frontier of relaxations instead has rounds on every vertical axis.
_AGAINST_AXIS = ("examined_acceptance", "rounds", "frechet", "accuracy")
_FRONTIER = ("tv_bound", "tv_estimate", "frechet", "accuracy")


def draw(rows: Sequence[Row]) -> Any:
    """Four panels, with 95 % intervals, as a matplotlib Figure.

    With several relaxations: rounds against their bound, their estimate, and quality, a line for
    each rule. Else acceptance, rounds and quality against the stochasticity, the steps, the window,
    the variance or the law, whichever varies first in this order, a line for each combination of
    the others.
    """
    names = varied([row["setting"] for row in rows])
    figure = require_matplotlib()(figsize=(11, 8), layout="constrained")
    panels = figure.subplots(2, 2).flatten()
    (_frontier if "relax" in names else _against_axis)(panels, rows, names)
    for axes in panels:
        axes.grid(alpha=0.3)
        if axes.get_legend_handles_labels()[0]:
            axes.legend(fontsize="x-small")
    return figure


def _frontier(panels: Sequence[Any], rows: Sequence[Row], names: Sequence[str]) -> None:
    others = [name for name in names if name != "relax"]
    lines: dict[str, list[Row]] = {}
    for row in rows:
        setting = row["setting"]
        if setting["window"] == 1 or setting["relax"] == "none":
            continue
        rule, _, amount = setting["relax"].partition(":")
        budget = ", budget " + amount.partition(":")[2] if ":" in amount else ""
        same = label(setting, others)
        line = lines.setdefault(", ".join(part for part in (rule + budget, same) if part), [])
        if not line:  # each begins at the exact sampler that drafts in the same way
            exact = {**setting, "relax": "none", "uncertainty": "discrepancy"}
            line += [row for row in rows if row["setting"] == exact]
        line.append(row)
    for axes, x in zip(panels, _FRONTIER, strict=True):
        for name, line in lines.items():
            line = sorted(line, key=lambda row: -row["rounds"]["value"])
            _line(axes, line, [_figure(row, x) for row in line], "rounds", name)
        plain = [_figure(row, x) for row in rows if row["setting"]["window"] == 1]
        if x in ("frechet", "accuracy") and len(plain) == 1 and plain[0] is not None:
            axes.axvline(plain[0]["value"], color="0.5", ls="--", label="sequential")
            axes.axvspan(plain[0]["low"], plain[0]["high"], color="0.92", zorder=0)
        axes.set(xlabel=_NAMES[x], ylabel=_NAMES["rounds"])
    panels[0].set_xscale("symlog", linthresh=1.0)
    panels[0].axvline(1.0, color="0.5", lw=0.8, label="from here on the bound says nothing")


def _against_axis(panels: Sequence[Any], rows: Sequence[Row], names: Sequence[str]) -> None:
    axis = next((name for name in _AXES if name in names), "window")
    others = [name for name in names if name != axis]
    lines: dict[str, list[Row]] = {}
    for row in rows:
        lines.setdefault(label(row["setting"], others), []).append(row)
    for axes, y in zip(panels, _AGAINST_AXIS, strict=True):
        for name, line in lines.items():
            if line[0]["setting"]["window"] == 1 and y == "rounds" and len(lines) > 1:
                continue  # all its steps: the others would be a line at the bottom
            if axis not in ("variance", "law"):
                line = sorted(line, key=lambda row: row["setting"][axis])
            xs = [{"value": row["setting"][axis], "low": None} for row in line]
            _line(axes, line, xs, y, name)
        axes.set(xlabel=axis, ylabel=_NAMES[y])


def _figure(row: Row, name: str) -> dict[str, Any] | None:
    """A figure of a row with its interval, wherever it stands; None if it was not taken."""
    figure = (row["quality"] or {}).get(name) if name in ("frechet", "accuracy") else row[name]
    return {"value": figure, "low": None} if isinstance(figure, float) else figure


def _line(
    axes: Any, rows: Sequence[Row], xs: Sequence[dict[str, Any] | None], y: str, name: str
) -> None:
    """One line with error bars; rows without one of the two figures are left out."""
    pairs = [(x, _figure(row, y)) for x, row in zip(xs, rows, strict=True)]
    points = [(x, value) for x, value in pairs if x is not None and value is not None]
    if not points:
        return
    (across, x_bars), (up, y_bars) = (error_bars(part) for part in zip(*points, strict=True))
    axes.errorbar(
        across, up, y_bars, x_bars, marker="o", ms=3.5, lw=1, elinewidth=0.7, capsize=2,
        label=name or None,
    )  # fmt: skip
