"""recycled_rows by hand."""

import torch

from free.ops import recycled_rows


def ints(*values: int) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.int32)


def test_rows_behind_a_rejection_are_kept() -> None:
    # Rows 0-3, 4-6 and 7; made 2, 3 and 1 transitions.
    row, known = recycled_rows(ints(4, 3, 1), ints(2, 3, 1), 4, True)
    assert row.tolist() == [[1, 2, 3, 3], [6, 6, 6, 6], [7, 7, 7, 7]]
    assert known.tolist() == [3, 1, 1]
    assert row.dtype == known.dtype == torch.int64


def test_or_only_that_of_the_transition_made() -> None:
    row, known = recycled_rows(ints(4, 3, 1), ints(2, 1, 1), 2, False)
    assert row.tolist() == [[1, 1], [4, 4], [7, 7]]
    assert known.tolist() == [1, 1, 1]


def test_rows_may_have_gaps_between_samples() -> None:
    row, known = recycled_rows(ints(4, 3, 1), ints(2, 3, 1), 4, True, stride=5)
    assert row.tolist() == [[1, 2, 3, 3], [7, 7, 7, 7], [10, 10, 10, 10]]
    assert known.tolist() == [3, 1, 1]
