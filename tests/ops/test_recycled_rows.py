"""recycled_rows by hand: rows behind a rejection, or only that of the transition made."""

import pytest
import torch

from free.ops import recycled_rows


@pytest.mark.parametrize(
    ("advance", "options", "rows", "known"),
    [  # Rows 0-3, 4-6 and 7, or with gaps between samples
        ((2, 3, 1), (4, True), [[1, 2, 3, 3], [6] * 4, [7] * 4], [3, 1, 1]),
        ((2, 3, 1), (4, True, 5), [[1, 2, 3, 3], [7] * 4, [10] * 4], [3, 1, 1]),
        ((2, 1, 1), (2, False), [[1, 1], [4, 4], [7, 7]], [1, 1, 1]),
    ],
)
def test_rows_that_are_kept(advance, options, rows, known) -> None:
    length, made = torch.tensor([(4, 3, 1), advance], dtype=torch.int32).unbind(0)
    row, seen = recycled_rows(length.clone(), made.clone(), *options)
    assert row.tolist() == rows
    assert seen.tolist() == known
    assert row.dtype == seen.dtype == torch.int64
