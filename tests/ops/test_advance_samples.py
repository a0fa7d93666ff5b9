"""advance_samples_ by hand: rows behind a rejection, samples that stay, and the log."""

from typing import Any

import pytest
import torch

from free import reference
from free.ops import advance_samples_

BOTH = pytest.mark.parametrize("advance", [advance_samples_, reference.advance_samples_])


def round_of_three(
    made: Any = (2, 3, 1), wanted: Any = (4, 3, 1), **options: Any
) -> dict[str, Any]:
    """Rows 0-3, 4-6 and 7 of a call."""
    return {
        "after": torch.tensor([[1.0], [2.0], [3.0]]),
        "x": torch.tensor([[-1.0], [-2.0], [-3.0]]),
        "k": torch.tensor([10, 20, 30]),
        "rounds": torch.tensor([7, 8, 9]),
        "wanted": torch.tensor(wanted),
        "length": torch.tensor([4, 3, 1], dtype=torch.int32),
        "advance": torch.tensor(made, dtype=torch.int32),
        "accepted": torch.tensor([1, 2, 0], dtype=torch.int32),
        **options,
    }


@BOTH
@pytest.mark.parametrize(
    ("made", "options", "rows", "known"),
    [
        ((2, 3, 1), (4, True, None), [[1, 2, 3, 3], [6] * 4, [7] * 4], [3, 1, 1]),
        ((2, 3, 1), (4, True, 5), [[1, 2, 3, 3], [7] * 4, [10] * 4], [3, 1, 1]),
        ((2, 1, 1), (2, False, None), [[1, 1], [4, 4], [7, 7]], [1, 1, 1]),
    ],
)
def test_rows_that_are_kept(advance, made, options, rows, known) -> None:
    options = dict(zip(("width", "discarded", "stride"), options, strict=True))
    moved = advance(**round_of_three(made, **options))
    assert moved.row.tolist() == rows
    assert moved.known.tolist() == known
    assert moved.row.dtype == moved.known.dtype == torch.int64


@BOTH
def test_who_wanted_nothing_stays(advance: Any) -> None:
    given = round_of_three(wanted=(4, 0, 1), width=2, discarded=True)
    moved = advance(**given)
    assert moved.k.tolist() == [12, 20, 31]
    assert moved.rounds.tolist() == [8, 9, 10]
    assert given["after"].flatten().tolist() == [1.0, -2.0, 3.0]


@BOTH
@pytest.mark.parametrize("rounds", [7, 2, 2**62 * 2 - 1])
def test_a_round_is_logged_where_the_count_says(advance: Any, rounds: int) -> None:
    log = torch.full((5, 3, 3), -1)
    advance(**round_of_three(width=2, discarded=True, log=log, rounds=torch.tensor([rounds, 0, 1])))
    assert log[2].tolist() == [[10, 20, 30], [4, 3, 1], [1, 2, 0]]
    assert bool((log[[0, 1, 3, 4]] == -1).all())
