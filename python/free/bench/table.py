"""Lines of a benchmark as a table, in text and Markdown."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from free.bench.lines import Line
from free.evaluation import Figure

__all__ = ["markdown", "remarks", "text"]


def _figure(name: str, scale: float, form: str) -> Callable[[Line], str]:
    def cell(line: Line) -> str:
        figure: Figure | None = line.figures.get(name)
        if figure is None:
            return ""
        found = format(scale * figure.value, form)
        if figure.low is None or figure.high is None:
            return found
        return f"{found} [{scale * figure.low:{form}}, {scale * figure.high:{form}}]"

    return cell


_COLUMNS: tuple[tuple[str, Callable[[Line], str]], ...] = (
    ("sampler", lambda line: line.label),
    ("law", lambda line: "the same" if line.lossless else "another"),
    ("rounds", lambda line: f"{line.rounds:.1f}"),
    ("teacher rows", lambda line: f"{line.teacher_rows:.0f}"),
    ("accepted", lambda line: "" if line.acceptance is None else f"{100 * line.acceptance:.0f} %"),
    ("steps a round", lambda line: f"{line.steps_a_round:.2f}"),
    ("s an image", lambda line: f"{line.timing.median:.3f}"),
    ("IQR", lambda line: f"{line.timing.iqr:.3f}"),
    ("speed-up", lambda line: f"{line.speedup:.2f}"),
    ("named as asked, %", _figure("accuracy", 100, ".1f")),
    ("Frechet", _figure("frechet", 1, ".1f")),
    ("TV at most", lambda line: f"{line.tv_bound:.2g}" if line.tv_bound else ""),
    ("peak MB", lambda line: f"{line.peak_bytes / 1e6:.0f}" if line.peak_bytes else ""),
)


def _cells(lines: Sequence[Line]) -> list[list[str]]:
    """The heading and the rows; columns that would be empty are left out."""
    columns = [[heading, *map(cell, lines)] for heading, cell in _COLUMNS]
    return [list(row) for row in zip(*(c for c in columns if any(c[1:])), strict=True)]


def text(lines: Sequence[Line]) -> str:
    """For a terminal."""
    cells = _cells(lines)
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if at < 2 else cell.rjust(width)
            for at, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in cells
    )


def markdown(lines: Sequence[Line]) -> str:
    """A table of Markdown; samplers of another law in italics."""
    heading, *rows = _cells(lines)
    for line, row in zip(lines, rows, strict=True):
        if not line.lossless:
            row[0] = f"*{row[0]}*"
    rule = ["---"] * len(heading)
    return "\n".join(f"| {' | '.join(row)} |" for row in (heading, rule, *rows))


def remarks(lines: Sequence[Line]) -> list[str]:
    """What was thrown away, and what could not be."""
    discarded = sum(line.timing.discarded for line in lines)
    kept = sum(line.timing.samples for line in lines)
    busy = [line.label for line in lines if not line.timing.clean]
    found = []
    if discarded:
        found.append(
            f"{discarded} of {kept + discarded} samples were discarded: other processes used the "
            "machine meanwhile."
        )
    if busy:
        found.append(
            f"The machine was too busy to discard what other processes disturbed, for {len(busy)} "
            f"of {len(lines)} samplers ({'; '.join(busy[:3])}{' ...' if len(busy) > 3 else ''}): "
            "their seconds are of disturbed samples too."
        )
    if not found:
        found.append("No other process disturbed the measurement.")
    return found
