"""How plots look: one colour a method, lines that are labelled where they end, axes in words.

Those of ``free bench`` and of ``benchmarks/`` alike.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from free.files import write_atomic

#: The colour of each method, in every plot.
COLOURS = {
    "plain": "#444444",
    "ddim": "#a6761d",
    "eps": "#d62728",
    "image": "#ff9d2e",
    "paper": "#9467bd",
    "recycled": "#2ca02c",
    "trained": "#1f77b4",
    "auto": "#17a2b8",
    "block": "#8c564b",
    "relaxed": "#e377c2",
}
#: Of what is there for comparison only.
PALE = "#c4c4c4"

_FONT = 9.0
#: From one label to the next one below it, in points.
_LINE = 1.25 * _FONT


class Label(NamedTuple):
    """A text beside a point of the data."""

    x: float
    y: float
    text: str
    colour: str


def require_matplotlib() -> Any:
    """Matplotlib's Figure, which draws without a window; an ImportError names the extra."""
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError("--plot needs matplotlib: pip install 'free-dit[train]'") from error
    return Figure


def panels(count: int, width: float = 5.2, height: float = 4.4, **settings: Any) -> tuple[Any, Any]:
    """A figure of panels side by side, and these; ``settings`` are those of ``subplots``."""
    figure = require_matplotlib()(figsize=(width * count, height), layout="constrained")
    figure.get_layout_engine().set(w_pad=0.12, wspace=0.06)
    return figure, list(figure.subplots(1, count, squeeze=False, **settings)[0])


def name_axes(axes: Any, x: str, y: str, grid: str = "y") -> None:
    """Name both axes, the vertical one above it where it is read without turning one's head."""
    axes.set_title(y, loc="left", fontsize=_FONT + 1.5)
    axes.set_xlabel(x, fontsize=_FONT + 1.5)
    axes.tick_params(labelsize=_FONT)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis=grid, color="#e6e6e6", linewidth=0.8)
    axes.set_axisbelow(True)


def number_ticks(axis: Any, values: Sequence[float]) -> None:
    """Tick these values alone, written as they are."""
    from matplotlib.ticker import FixedFormatter, FixedLocator, NullLocator

    axis.set_major_locator(FixedLocator(list(values)))
    axis.set_major_formatter(FixedFormatter([f"{value:,g}" for value in values]))
    axis.set_minor_locator(NullLocator())


def label_ends(axes: Any, labels: Sequence[Label]) -> None:
    """Write each label to the right of its point, moved up or down if it would cover another.

    To be called when scales and limits are set.
    """
    axes.figure.draw_without_rendering()  # where points are is known only now
    per_point = axes.figure.dpi / 72
    heights = [axes.transData.transform((one.x, one.y))[1] / per_point for one in labels]
    for one, height, place in zip(labels, heights, spread(heights, _LINE), strict=True):
        axes.annotate(
            one.text,
            (one.x, one.y),
            xytext=(7, place - height),
            textcoords="offset points",
            va="center",
            color=one.colour,
            fontsize=_FONT,
            annotation_clip=False,
        )


def spread(places: Sequence[float], gap: float) -> list[float]:
    """Move places apart until neighbours are at least a gap from each other, in the same order.

    The sum of the squares of all moves is the least (isotonic regression, pooling neighbours).
    """
    order = sorted(range(len(places)), key=places.__getitem__)
    blocks: list[list[float]] = []  # mean of place - rank * gap, and how many there are
    for rank, index in enumerate(order):
        blocks.append([places[index] - rank * gap, 1])
        while len(blocks) > 1 and blocks[-2][0] > blocks[-1][0]:
            (first, many), (second, more) = blocks[-2:]
            blocks[-2:] = [[(first * many + second * more) / (many + more), many + more]]
    means = [mean for mean, many in blocks for _ in range(int(many))]
    moved = [0.0] * len(places)
    for rank, index in enumerate(order):
        moved[index] = means[rank] + rank * gap
    return moved


def error_bars(figures: Sequence[Mapping[str, Any]]) -> tuple[list[Any], list[list[float]] | None]:
    """Values, and how far their intervals reach below and above, as matplotlib takes them.

    Each figure has a ``value``, and ``low`` and ``high`` where there is an interval. The bars are
    None where none is longer than 0.
    """
    below = [0.0 if f["low"] is None else f["value"] - f["low"] for f in figures]
    above = [0.0 if f["low"] is None else f["high"] - f["value"] for f in figures]
    return [f["value"] for f in figures], [below, above] if any(below + above) else None


def save(figure: Any, path: Path) -> None:
    """Write the picture, whole or not at all."""
    write_atomic(path, lambda temporary: figure.savefig(temporary, dpi=150))
