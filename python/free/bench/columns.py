"""Tables of text, and figures in their cells."""

from __future__ import annotations

from collections.abc import Sequence


def drop_empty(rows: Sequence[Sequence[str]]) -> list[list[str]]:
    """Leave out the columns that are empty below the heading, which is the first row."""
    columns = [column for column in zip(*rows, strict=True) if any(column[1:])]
    return [list(row) for row in zip(*columns, strict=True)]


def aligned(rows: Sequence[Sequence[str]], left: int = 1) -> list[str]:
    """Lines of a table: its first ``left`` columns flush left, the others flush right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(
            cell.ljust(width) if place < left else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]


def with_interval(value: float, low: float | None, high: float | None, form: str) -> str:
    """A figure with its interval, where it has one, in this format."""
    if low is None or high is None:
        return format(value, form)
    return f"{value:{form}} [{low:{form}}, {high:{form}}]"
