"""Speed against quality."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from free.bench.lines import Line
from free.files import write_atomic

__all__ = ["plot", "require_matplotlib"]


def require_matplotlib() -> Any:
    """The module that draws, without a window.

    Raises
    ------
    ImportError
        If it is not installed; names the extra.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError("--plot needs matplotlib: pip install 'free-dit[train]'") from error
    return Figure


def plot(path: Path, lines: Sequence[Line], title: str, network: str) -> None:
    """Write a picture: one mark a sampler, those that differ in the window alone joined.

    Parameters
    ----------
    path : Path
    lines : sequence of Line
        With figures; where they have a Frechet distance it is drawn, else the accuracy.
    title : str
    network : str
        What the images were judged by.

    Raises
    ------
    ValueError
        If the lines have neither figure.
    """
    name = next((n for n in ("frechet", "accuracy") if all(n in x.figures for x in lines)), None)
    if name is None:
        raise ValueError("--plot needs figures of quality of every row: --quality, --reference")
    figure = require_matplotlib()(figsize=(9, 5.2), layout="constrained")
    axes = figure.subplots()
    groups = list(dict.fromkeys(line.group for line in lines))
    for index, group in enumerate(groups):
        own = [line for line in lines if line.group == group]
        figures = [line.figures[name] for line in own]
        # Laws that are the same have one figure: beside each other they can be told apart.
        speeds, values = [line.speedup for line in own], [f.value for f in figures]
        ends = [[f.value if f.low is None else f.low for f in figures],
                [f.value if f.high is None else f.high for f in figures]]  # fmt: skip
        spread = [[v - low for v, low in zip(values, ends[0], strict=True)],
                  [high - v for v, high in zip(values, ends[1], strict=True)]]  # fmt: skip
        lossless = own[0].lossless
        axes.errorbar(
            speeds,
            values,
            spread,
            color=f"C{index}",
            marker="o" if lossless else "s",
            markerfacecolor=f"C{index}" if lossless else "white",
            linestyle="none" if lossless else ":",
            elinewidth=0.6 if lossless else 1.2,
            label=group,
        )
        crowded = _crowded(speeds)
        for at, line in enumerate(own):
            if len(own) == 1 or line.window == 1:
                note = "" if line.window != 1 or lossless else line.law.split(", ")[1]
            else:
                note = str(line.window)
            # Lossless laws lie on one height: each group has a rank of labels above it or below.
            height = 9 * (index // 2) + 8 * crowded[at]
            offset = (3, 5 + height if index % 2 else -12 - height) if lossless else (5, 5)
            axes.annotate(
                note,
                (speeds[at], values[at]),
                xytext=offset,
                textcoords="offset points",
                fontsize="x-small",
                color=f"C{index}",
            )
    axes.axvline(1.0, color="grey", linewidth=0.8)
    axes.set_xscale("log")
    ticks = [t for t in (0.5, 0.75, 1, 1.5, 2, 3, 4, 6, 8, 12) if _within(t, lines)]
    axes.set_xticks(ticks, [f"{t:g}" for t in ticks])
    axes.minorticks_off()
    axes.set_xlabel("times as fast as the plain sampler of all steps (numbers: windows)")
    better = {"frechet": "Frechet distance, {} features (lower is better)",
              "accuracy": "share named as asked for, {}"}  # fmt: skip
    axes.set_ylabel(better[name].format(network))
    axes.set_title(title, fontsize="medium")
    axes.grid(alpha=0.3)
    figure.legend(loc="outside lower center", ncols=5, fontsize="x-small")
    write_atomic(path, lambda temporary: figure.savefig(temporary, dpi=150))


def _crowded(speeds: Sequence[float]) -> list[int]:
    """How many labels next to each other a label must make way for, in turns of three."""
    order = sorted(range(len(speeds)), key=speeds.__getitem__)
    turns = [0] * len(speeds)
    for before, at in itertools.pairwise(order):
        if speeds[at] < 1.1 * speeds[before]:
            turns[at] = (turns[before] + 1) % 3
    return turns


def _within(tick: float, lines: Sequence[Line]) -> bool:
    speeds = [line.speedup for line in lines]
    return 0.8 * min(speeds) <= tick <= 1.25 * max(speeds)
