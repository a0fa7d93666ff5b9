"""What is kept of a teacher call."""

from __future__ import annotations

import torch

from free import TeacherOutput
from free.models.output import TeacherRows
from free.rounds.state import Recycled


def test_samples_that_leave_leave_their_rows_behind() -> None:
    """Others may need them."""
    rows = TeacherRows(*TeacherOutput(torch.zeros(7, 2)), torch.zeros(7, 2), torch.arange(7))
    past = Recycled(rows, rows.eps, torch.tensor([[1, 2], [6, 6]]), torch.tensor([2, 1]))
    assert past.bytes == 7 * (2 * 4 + 2 * 4 + 2 * 4 + 8)
    kept = past.keep(torch.tensor([False, True]))
    assert kept.row.tolist() == [[6, 6]]
    assert kept.known.tolist() == [1]
    assert kept.bytes == past.bytes
