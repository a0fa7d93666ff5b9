"""note_nonfinite_ against a loop over rows."""

import math

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


@pytest.mark.parametrize(
    ("batch", "entries", "low", "dtype"),
    [
        (1, 1, False, torch.float32),
        (1, 8, True, torch.float16),
        (7, 1, False, torch.bfloat16),
        (13, 5, True, torch.float32),
        (13, 5, False, torch.float16),
        (13, 5, True, torch.bfloat16),
    ],
)
def test_agrees_with_a_loop(batch: int, entries: int, low: bool, dtype: torch.dtype) -> None:
    note = random_note(batch, entries, (3, 2), dtype=dtype, low=low, seed=batch)
    expected = noted(note)
    changed = expected != note.failed.tolist()
    note_nonfinite_(**note._asdict())
    assert note.failed.tolist() == expected
    assert changed or batch * entries < 8


@DTYPES
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_any_element_counts(value: float, dtype: torch.dtype) -> None:
    values = torch.zeros(6, 2, 3, dtype=dtype)
    for row in range(6):
        values.view(6, 6)[row, row] = value
    failed, each = torch.full((6,), NEVER), torch.arange(6)
    note_nonfinite_(failed, each, values, 10 + each, first=0, low=None, high=each * 0 + 1)
    assert failed.tolist() == [10, 11, 12, 13, 14, 15]


@DTYPES
def test_the_largest_and_smallest_numbers_are_finite(dtype: torch.dtype) -> None:
    limits = torch.finfo(dtype)
    smallest = limits.smallest_normal / 2
    values = torch.tensor([[limits.max, limits.min, smallest, -0.0]], dtype=dtype)
    failed, zero = torch.full((1,), NEVER), torch.zeros(1, dtype=torch.int64)
    note_nonfinite_(failed, zero, values, zero, first=0, low=None, high=zero + 1)
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
def test_positions_that_are_asked_about(first, low, high, expected) -> None:
    """Three rows, all bad."""
    failed, lowest = ints(NEVER), None if low is None else ints(low)
    values = torch.full((3, 2), math.nan)
    k = ints(30, 31, 32)
    note_nonfinite_(failed, ints(0), values, k, first=first, low=lowest, high=ints(high))
    assert failed.tolist() == [expected]


def test_the_smallest_transition_stays() -> None:
    """Whether it was noted before, or comes from another row of the same sample."""
    values = torch.full((3, 1), math.nan)
    failed = ints(NEVER, 4, 6, 5)
    samples, high = ints(1, 2, 1), ints(1, 1, 1)
    note_nonfinite_(failed, samples, values, ints(7, 5, 3), first=0, low=None, high=high)
    assert failed.tolist() == [NEVER, 3, 5, 5]
    note_nonfinite_(failed, samples, values, ints(9, 9, 9), first=0, low=None, high=high)
    assert failed.tolist() == [NEVER, 3, 5, 5]


@pytest.mark.parametrize("sample", [-1, 4])
def test_a_sample_that_is_not_there(sample: int) -> None:
    note = random_note(2, 3, (4,))
    note.samples[1] = sample
    expected = rf"^samples: expected values in 0\.\.3, got {sample} for entry 1$"
    with pytest.raises(ValueError, match=expected):
        note_nonfinite_(**note._asdict())
