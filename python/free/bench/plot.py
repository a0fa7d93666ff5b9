"""Speed against quality, and what every plot needs."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from free.bench.lines import Line
from free.files import write_atomic


def require_matplotlib() -> Any:
    """Matplotlib's Figure, which draws without a window; an ImportError names the extra."""
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError("--plot needs matplotlib: pip install 'free-dit[train]'") from error
    return Figure


def error_bars(figures: Sequence[Mapping[str, Any]]) -> tuple[list[Any], list[list[float]] | None]:
    """Values, and how far their intervals reach below and above, as matplotlib takes them.

    Each figure has a ``value``, and ``low`` and ``high`` where there is an interval. The bars are
    None where none is longer than 0.
    """
    below = [0.0 if f["low"] is None else f["value"] - f["low"] for f in figures]
    above = [0.0 if f["low"] is None else f["high"] - f["value"] for f in figures]
    return [f["value"] for f in figures], [below, above] if any(below + above) else None


def plot(path: Path, lines: Sequence[Line], title: str, network: str) -> None:
    """Write a picture: one mark a sampler, those that differ in the window alone joined.

    The lines' Frechet distance is drawn where they have one, else the accuracy; a ValueError if
    they have neither. ``network`` is what the images were judged by.
    """
    titles = {
        "frechet": "Frechet distance, {} features (lower is better)",
        "accuracy": "share named as asked for, {}",
    }
    name = next((n for n in titles if all(n in line.figures for line in lines)), None)
    if name is None:
        raise ValueError("--plot needs figures of quality of every row: --quality, --reference")
    figure = require_matplotlib()(figsize=(9, 5.2), layout="constrained")
    axes = figure.subplots()
    for index, group in enumerate(dict.fromkeys(line.row.group for line in lines)):
        _group(axes, index, [line for line in lines if line.row.group == group], name)
    axes.axvline(1.0, color="grey", linewidth=0.8)
    axes.set_xscale("log")
    speeds = [line.speedup for line in lines]
    ticks = [
        tick
        for tick in (0.5, 0.75, 1, 1.5, 2, 3, 4, 6, 8, 12)
        if 0.8 * min(speeds) <= tick <= 1.25 * max(speeds)
    ]
    axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.minorticks_off()
    axes.set_xlabel("times as fast as the plain sampler of all steps (numbers: windows)")
    axes.set_ylabel(titles[name].format(network))
    axes.set_title(title, fontsize="medium")
    axes.grid(alpha=0.3)
    figure.legend(loc="outside lower center", ncols=5, fontsize="x-small")
    write_atomic(path, lambda temporary: figure.savefig(temporary, dpi=150))


def _group(axes: Any, index: int, lines: Sequence[Line], name: str) -> None:
    """Draw the lines of a group, the ``index``-th, with notes of their windows."""
    lossless, colour = lines[0].row.lossless, f"C{index}"
    speeds = [line.speedup for line in lines]
    values, bars = error_bars([vars(line.figures[name]) for line in lines])
    axes.errorbar(
        speeds,
        values,
        bars,
        color=colour,
        marker="o" if lossless else "s",
        markerfacecolor=colour if lossless else "white",
        linestyle="none" if lossless else ":",
        elinewidth=0.6 if lossless else 1.2,
        label=lines[0].row.group,
    )
    for line, value, turn in zip(lines, values, _turns(speeds), strict=True):
        note = str(line.row.window)
        if len(lines) == 1 or line.row.window == 1:
            note = "" if line.row.window != 1 or lossless else line.law.split(", ")[1]
        # Lossless laws lie on one height: each group has a rank of labels above it or below.
        height = 9 * (index // 2) + 8 * turn
        offset = (3, 5 + height if index % 2 else -12 - height) if lossless else (5, 5)
        axes.annotate(
            note,
            (line.speedup, value),
            xytext=offset,
            textcoords="offset points",
            fontsize="x-small",
            color=colour,
        )


def _turns(speeds: Sequence[float]) -> list[int]:
    """How many labels next to each other a label must make way for, in turns of three."""
    order = sorted(range(len(speeds)), key=speeds.__getitem__)
    turns = [0] * len(speeds)
    for before, at in itertools.pairwise(order):
        if speeds[at] < 1.1 * speeds[before]:
            turns[at] = (turns[before] + 1) % 3
    return turns
