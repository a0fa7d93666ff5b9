"""What is kept of a teacher call, as seen from the next windows."""

from __future__ import annotations

import torch

from free import TeacherOutput
from free.models.output import TeacherRows
from free.rounds.state import Recycled, recycle


def recycled(discarded: bool) -> Recycled:
    """Of two samples that have made two of four rows, and all three."""
    rows = TeacherRows(*TeacherOutput(torch.zeros(7, 2)), torch.zeros(7, 2), torch.arange(7))
    length, advance = torch.tensor([4, 3]).int(), torch.tensor([2, 3]).int()
    return recycle(rows, rows.eps, length, advance, width=4, discarded=discarded)


def test_without_recycling_only_the_row_of_the_transition_made_is_kept() -> None:
    past = recycled(discarded=False)
    assert past.row.tolist() == [[1] * 4, [6] * 4]
    assert past.known.tolist() == [1, 1]


def test_rows_behind_a_rejection_are_of_the_transitions_to_come() -> None:
    past = recycled(discarded=True)
    assert past.row.tolist() == [[1, 2, 3, 3], [6] * 4]
    assert past.known.tolist() == [3, 1]
    assert past.bytes == 7 * (2 * 4 + 2 * 4 + 2 * 4 + 8)
    assert past.keep(torch.tensor([False, True])).row.tolist() == [[6] * 4]
