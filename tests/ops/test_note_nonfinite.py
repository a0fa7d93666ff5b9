"""note_nonfinite_ against a loop over rows, and with bad input."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from free.ops import note_nonfinite_
from tests.rows import Note, random_note

DTYPES = pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
NEVER = torch.iinfo(torch.int64).max


def noted(note: Note) -> list[int]:
    """What should be in ``failed``, row by row."""
    failed: list[int] = note.failed.tolist()
    entries = len(note.values) // len(note.samples)
    for r, row in enumerate(note.values.flatten(1).double().tolist()):
        b, position = r // entries, note.first + r % entries
        wanted = position < note.high[b] and (note.low is None or position >= note.low[b])
        if wanted and not all(map(math.isfinite, row)):
            sample = int(note.samples[b])
            failed[sample] = min(failed[sample], int(note.k[r]))
    return failed


@DTYPES
@pytest.mark.parametrize("low", [False, True])
@pytest.mark.parametrize(("batch", "entries"), [(1, 1), (1, 8), (7, 1), (13, 5)])
def test_agrees_with_a_loop(batch: int, entries: int, low: bool, dtype: torch.dtype) -> None:
    note = random_note(batch, entries, (3, 2), dtype=dtype, low=low, seed=batch)
    expected = noted(note)
    changed = expected != note.failed.tolist()
    note_nonfinite_(*note)
    assert note.failed.tolist() == expected
    assert changed or batch * entries < 8


@DTYPES
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_any_element_counts(value: float, dtype: torch.dtype) -> None:
    values = torch.zeros(6, 2, 3, dtype=dtype)
    for row in range(6):
        values.view(6, 6)[row, row] = value
    failed, each = torch.full((6,), NEVER), torch.arange(6)
    note_nonfinite_(failed, values, 10 + each, each, 0, None, torch.ones_like(each))
    assert failed.tolist() == [10, 11, 12, 13, 14, 15]


@DTYPES
def test_the_largest_and_smallest_numbers_are_finite(dtype: torch.dtype) -> None:
    limits = torch.finfo(dtype)
    smallest = limits.smallest_normal / 2
    values = torch.tensor([[limits.max, limits.min, smallest, -0.0]], dtype=dtype)
    failed, zero = torch.full((1,), NEVER), torch.zeros(1, dtype=torch.int64)
    note_nonfinite_(failed, values, zero, zero, 0, None, zero + 1)
    assert failed.tolist() == [NEVER]


def ints(*values: int) -> Tensor:
    return torch.tensor(values)


@pytest.mark.parametrize(
    ("first", "low", "high", "expected"),
    [
        (0, None, 3, 30),
        (0, 0, 3, 30),
        (0, 1, 3, 31),
        (0, 2, 3, 32),
        (0, None, 0, NEVER),
        (0, 3, 3, NEVER),
        (0, 2, 1, NEVER),
        (1, None, 1, NEVER),
        (1, None, 2, 30),
        (1, 2, 4, 31),
        (5, 7, 100, 32),
        (5, 8, 100, NEVER),
    ],
)
def test_positions_that_are_asked_about(
    first: int, low: int | None, high: int, expected: int
) -> None:
    """Three rows, all bad."""
    failed, lowest = ints(NEVER), None if low is None else ints(low)
    values = torch.full((3, 2), math.nan)
    note_nonfinite_(failed, values, ints(30, 31, 32), ints(0), first, lowest, ints(high))
    assert failed.tolist() == [expected]


def test_the_smallest_transition_stays() -> None:
    """Whether it was noted before, or comes from another row of the same sample."""
    values = torch.full((3, 1), math.nan)
    failed = ints(NEVER, 4, 6, 5)
    note_nonfinite_(failed, values, ints(7, 5, 3), ints(1, 2, 1), 0, None, ints(1, 1, 1))
    assert failed.tolist() == [NEVER, 3, 5, 5]
    note_nonfinite_(failed, values, ints(9, 9, 9), ints(1, 2, 1), 0, None, ints(1, 1, 1))
    assert failed.tolist() == [NEVER, 3, 5, 5]


@pytest.mark.parametrize("low", [False, True])
def test_is_a_well_formed_custom_op(low: bool) -> None:
    checks = ("test_schema", "test_autograd_registration", "test_faketensor")
    arguments = tuple(random_note(3, 2, (4, 2), low=low))
    torch.library.opcheck(torch.ops.free.note_nonfinite_, arguments, test_utils=checks)


GOOD = {
    "failed": torch.zeros(4, dtype=torch.int64),
    "values": torch.zeros(6, 5),
    "k": torch.zeros(6, dtype=torch.int64),
    "samples": torch.zeros(3, dtype=torch.int64),
    "first": 0,
    "low": torch.zeros(3, dtype=torch.int64),
    "high": torch.zeros(3, dtype=torch.int64),
}
SHAPE = r"^values: expected a non-empty shape \[a multiple of 3, \.\.\.\], got "


@pytest.mark.parametrize(
    ("name", "value", "error", "message"),
    [
        ("failed", torch.zeros(4), TypeError, "^failed: expected int64, got float32$"),
        ("failed", ints(1)[None], ValueError, r"^failed: expected shape \[S\], got \[1, 1\]$"),
        ("values", [1.0], TypeError, "^values: expected a tensor, got list$"),
        ("values", torch.zeros(6, 5).double(), TypeError, "^values: expected float32, got float64"),
        ("values", torch.zeros(5, 6).mT, ValueError, "^values: expected a contiguous tensor, got"),
        ("values", torch.zeros(6), ValueError, SHAPE + r"\[6\]$"),
        ("values", torch.zeros(6, 0), ValueError, SHAPE + r"\[6, 0\]$"),
        ("values", torch.zeros(0, 5), ValueError, SHAPE + r"\[0, 5\]$"),
        ("values", torch.zeros(7, 5), ValueError, SHAPE + r"\[7, 5\]$"),
        (
            "values",
            torch.zeros(6, 5, device="meta"),
            ValueError,
            "^values: expected a tensor on cpu, got one on meta$",
        ),
        ("k", torch.zeros(6).int(), TypeError, "^k: expected int64, got int32$"),
        ("k", ints(1, 2), ValueError, r"^k: expected shape \[6\], got \[2\]$"),
        ("samples", torch.zeros(3), TypeError, "^samples: expected int64, got float32$"),
        ("samples", ints(1)[None], ValueError, r"^samples: expected shape \[B\], got \[1, 1\]$"),
        ("samples", ints().long(), ValueError, r"^samples: expected shape \[B\], got \[0\]$"),
        ("low", ints(1, 2), ValueError, r"^low: expected shape \[3\], got \[2\]$"),
        ("low", torch.zeros(3), TypeError, "^low: expected int64, got float32$"),
        ("high", ints(1, 2), ValueError, r"^high: expected shape \[3\], got \[2\]$"),
        ("high", None, TypeError, "^high: expected a tensor, got NoneType$"),
    ],
)
def test_bad_input(name: str, value: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        note_nonfinite_(**(GOOD | {name: value}))
