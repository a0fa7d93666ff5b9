"""recycled_rows by hand, and with bad input."""

from __future__ import annotations

from typing import Any

import pytest
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


def test_is_a_well_formed_custom_op() -> None:
    checks = ("test_schema", "test_autograd_registration", "test_faketensor")
    for stride in (None, 4):
        arguments = (ints(4, 3), ints(2, 3), 4, True, stride)
        torch.library.opcheck(torch.ops.free.recycled_rows, arguments, test_utils=checks)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((ints(4).long(), ints(1), 4), TypeError, "^length: expected int32, got int64$"),
        ((ints(4)[None], ints(1), 4), ValueError, r"^length: expected shape \[B\], got \[1, 1\]$"),
        ((ints(4), ints(1, 1), 4), ValueError, r"^advance: expected shape \[1\], got \[2\]$"),
        ((ints(4), ints(1), 0), ValueError, "^width: expected at least 1, got 0$"),
        (
            (ints(4), ints(1), 4, True, 0),
            ValueError,
            "^stride: expected at least 1, or None",
        ),
    ],
)
def test_bad_input(arguments: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        recycled_rows(*arguments[:3], True, *arguments[4:])
