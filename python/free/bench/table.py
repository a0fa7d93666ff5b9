"""Lines of a benchmark as tables, in text and Markdown: what each law is worth, what samplers take.

In text they fit 100 columns.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from free.bench.columns import aligned, drop_empty, with_interval
from free.bench.lines import Line

Columns = tuple[tuple[str, Callable[[Line], str]], ...]


def _figure(name: str, scale: float, form: str) -> Callable[[Line], str]:
    def cell(line: Line) -> str:
        if (figure := line.figures.get(name)) is None:
            return ""
        ends = [None if end is None else scale * end for end in (figure.low, figure.high)]
        return with_interval(scale * figure.value, ends[0], ends[1], form)

    return cell


_LAWS: Columns = (
    ("steps", lambda line: str(line.steps)),
    ("law", lambda line: line.law),
    ("named right, %", _figure("accuracy", 100, ".1f")),
    ("Frechet", _figure("frechet", 1, ".3g")),
    ("precision, %", _figure("precision", 100, ".0f")),
    ("recall, %", _figure("recall", 100, ".0f")),
)
_SAMPLERS: Columns = (
    ("steps", lambda line: str(line.steps)),
    ("sampler", lambda line: line.row.label),
    ("rounds", lambda line: f"{line.rounds:.1f}"),
    ("rows", lambda line: f"{line.teacher_rows:.0f}"),
    ("per round", lambda line: f"{line.report.parallel_efficiency:.2f}"),
    ("s/image", lambda line: f"{line.timing.median:.3f}"),
    ("IQR", lambda line: f"{line.timing.iqr:.3f}"),
    ("speed-up", lambda line: f"{line.speedup:.2f}"),
    ("TV <=", lambda line: f"{line.report.tv_bound:.2g}" if line.report.tv_bound else ""),
    ("MB", lambda line: f"{line.peak_bytes / 1e6:.0f}" if line.peak_bytes else ""),
)


def _tables(lines: Sequence[Line]) -> list[list[list[str]]]:
    """Headings and rows of both; the laws' is left out where none was judged."""
    laws = list({(line.steps, line.law): line for line in lines}.values())
    judged = [line for line in laws if line.figures]
    parts: list[tuple[Columns, Sequence[Line]]] = [(_LAWS, judged)] if judged else []
    return [
        drop_empty([[heading for heading, _ in columns],
                    *([cell(line) for _, cell in columns] for line in part)])
        for columns, part in [*parts, (_SAMPLERS, lines)]
    ]  # fmt: skip


def text(lines: Sequence[Line]) -> str:
    """The tables for a terminal."""
    return "\n\n".join("\n".join(aligned(table, left=2)) for table in _tables(lines))


def markdown(lines: Sequence[Line]) -> str:
    """The tables in Markdown."""
    parts = []
    for heading, *rows in _tables(lines):
        rule = ["---"] * len(heading)
        parts.append("\n".join(f"| {' | '.join(row)} |" for row in (heading, rule, *rows)))
    return "\n\n".join(parts)


def remarks(lines: Sequence[Line]) -> list[str]:
    """What was thrown away, and what could not be."""
    discarded = sum(line.timing.discarded for line in lines)
    total = discarded + sum(line.timing.samples for line in lines)
    busy = sum(not line.timing.clean for line in lines)
    notes = []
    if discarded:
        notes.append(
            f"{discarded} of {total} samples were discarded: other processes used the machine "
            "meanwhile."
        )
    if busy:
        notes.append(
            "The machine was too busy to discard what other processes disturbed, for "
            f"{busy} of {len(lines)} samplers: their seconds are of disturbed samples too."
        )
    return notes or ["No other process disturbed the measurement."]
