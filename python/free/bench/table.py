"""Lines of a benchmark as a table, in text and Markdown."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from free.bench.columns import aligned, drop_empty, with_interval
from free.bench.lines import Line


def _figure(name: str, scale: float) -> Callable[[Line], str]:
    def cell(line: Line) -> str:
        if (figure := line.figures.get(name)) is None:
            return ""
        ends = [None if end is None else scale * end for end in (figure.low, figure.high)]
        return with_interval(scale * figure.value, ends[0], ends[1], ".1f")

    return cell


_COLUMNS: tuple[tuple[str, Callable[[Line], str]], ...] = (
    ("sampler", lambda line: line.label),
    ("law", lambda line: "the same" if line.row.lossless else "another"),
    ("rounds", lambda line: f"{line.rounds:.1f}"),
    ("teacher rows", lambda line: f"{line.teacher_rows:.0f}"),
    ("accepted", lambda line: "" if line.acceptance is None else f"{100 * line.acceptance:.0f} %"),
    ("steps a round", lambda line: f"{line.report.parallel_efficiency:.2f}"),
    ("s an image", lambda line: f"{line.timing.median:.3f}"),
    ("IQR", lambda line: f"{line.timing.iqr:.3f}"),
    ("speed-up", lambda line: f"{line.speedup:.2f}"),
    ("named as asked, %", _figure("accuracy", 100)),
    ("Frechet", _figure("frechet", 1)),
    ("TV at most", lambda line: f"{line.report.tv_bound:.2g}" if line.report.tv_bound else ""),
    ("peak MB", lambda line: f"{line.peak_bytes / 1e6:.0f}" if line.peak_bytes else ""),
)


def _cells(lines: Sequence[Line]) -> list[list[str]]:
    """The heading and the rows."""
    headings = [heading for heading, _ in _COLUMNS]
    return drop_empty([headings, *([cell(line) for _, cell in _COLUMNS] for line in lines)])


def text(lines: Sequence[Line]) -> str:
    """The table for a terminal."""
    return "\n".join(aligned(_cells(lines), left=2))


def markdown(lines: Sequence[Line]) -> str:
    """The table in Markdown; samplers of another law in italics."""
    heading, *rows = _cells(lines)
    for line, row in zip(lines, rows, strict=True):
        if not line.row.lossless:
            row[0] = f"*{row[0]}*"
    rule = ["---"] * len(heading)
    return "\n".join(f"| {' | '.join(row)} |" for row in (heading, rule, *rows))


def remarks(lines: Sequence[Line]) -> list[str]:
    """What was thrown away, and what could not be."""
    discarded = sum(line.timing.discarded for line in lines)
    total = discarded + sum(line.timing.samples for line in lines)
    busy = [line.label for line in lines if not line.timing.clean]
    notes = []
    if discarded:
        notes.append(
            f"{discarded} of {total} samples were discarded: other processes used the machine "
            "meanwhile."
        )
    if busy:
        notes.append(
            f"The machine was too busy to discard what other processes disturbed, for {len(busy)} "
            f"of {len(lines)} samplers ({'; '.join(busy[:3])}{' ...' if len(busy) > 3 else ''}): "
            "their seconds are of disturbed samples too."
        )
    return notes or ["No other process disturbed the measurement."]
