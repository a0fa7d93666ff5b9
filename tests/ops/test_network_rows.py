"""network_rows by hand and against its twin."""

from typing import Any

import pytest
import torch

from free import reference
from free.ops import network_rows
from tests.rows import random_asking
from tests.shim import same

BOTH = pytest.mark.parametrize("gather", [network_rows, reference.network_rows])


def two_windows(**options: Any) -> dict[str, Any]:
    return {
        "states": torch.tensor([[[1.0], [2.0]], [[3.0], [4.0]]]),
        "at": torch.tensor([[0, 1], [2, 2]]),
        "y": torch.tensor([5, 6]),
        "timesteps": torch.tensor([900, 500, 100]),
        **options,
    }


@BOTH
@pytest.mark.parametrize(
    ("where", "x", "t", "label", "k"),
    [
        ({"rows": 4, "first": 0, "end": 2}, [1, 2, 3, 4], [900, 500, 100, 100], [5, 5, 6, 6],
         [0, 1, 2, 2]),
        ({"rows": 2, "first": 1, "end": 2}, [2, 4], [500, 100], [5, 6], [1, 2]),
        ({"rows": 0, "first": 1, "end": 1}, [], [], [], []),
        ({"rows": 3, "first": 0, "end": 0, "sample": [1, 0, 1], "entry": [0, 1, 1]},
         [3, 2, 4], [100, 500, 100], [6, 5, 6], [2, 1, 2]),
        ({"rows": 2, "first": 1, "end": 2, "null_label": -1}, [2, 2, 4, 4], [500, 500, 100, 100],
         [5, -1, 6, -1], [1, 2]),
        ({"rows": 2, "first": 1, "end": 2, "scale": [9.0, 0.5, 2.0]}, [1, 8], [500, 100], [5, 6],
         [1, 2]),
    ],
)  # fmt: skip
def test_rows_by_hand(gather, where, x, t, label, k) -> None:
    listed = {key: torch.tensor(v) if isinstance(v, list) else v for key, v in where.items()}
    rows = gather(**two_windows(**listed))
    assert rows.x.flatten().tolist() == x
    assert [column.tolist() for column in rows[1:]] == [t, label, k, []]
    assert rows.x.shape[1:] == (1,)


@BOTH
@pytest.mark.parametrize(
    ("where", "mean"),
    [
        ({"rows": 4, "first": 0, "end": 2}, [10, 20, 30, 40]),
        ({"rows": 2, "first": 1, "end": 2, "null_label": -1}, [20, 40]),
        ({"rows": 3, "first": 0, "end": 0, "sample": [1, 0, 1], "entry": [0, 1, 1]}, [30, 20, 40]),
    ],
)
def test_means_are_those_of_the_transitions_that_led_there(gather, where, mean) -> None:
    listed = {key: torch.tensor(v) if isinstance(v, list) else v for key, v in where.items()}
    means = {
        "means": torch.tensor([[[20.0]], [[40.0]]]),
        "mean_before": torch.tensor([[10.0], [30.0]]),
    }
    assert gather(**two_windows(**listed, **means)).mean.flatten().tolist() == mean


@pytest.mark.parametrize("listed", [False, True])
@pytest.mark.parametrize("null", [None, 7])
def test_agrees_with_twin(listed: bool, null: int | None) -> None:
    given = random_asking(3, 4, (2, 5), listed, null, listed)
    same(network_rows(**given), reference.network_rows(**given))


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"rows": 3}, r"rows: expected 4 in this span, got 3"),
        ({"rows": 2, "sample": [0, 2], "entry": [0, 0]},
         r"sample: expected values in 0\.\.1, got 2 for row 1"),
        ({"rows": 1, "sample": [0], "entry": [-1]},
         r"entry: expected values in 0\.\.1, got -1 for row 0"),
        ({"end": 3}, r"end: expected a value in 0\.\.2, got 3"),
    ],
)  # fmt: skip
def test_rows_that_are_not_there(changes: dict[str, Any], expected: str) -> None:
    given = {"rows": 4, "first": 0, "end": 2} | changes
    given = {key: torch.tensor(v) if isinstance(v, list) else v for key, v in given.items()}
    with pytest.raises(ValueError, match=f"^{expected}$"):
        network_rows(**two_windows(**given))
