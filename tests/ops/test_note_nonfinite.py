"""note_nonfinite_ against a loop over rows; also as the CUDA kernel's text computes it."""

import math
import shutil

import pytest
import torch
from torch import Tensor

from free.ops import note_nonfinite_
from tests.rows import NEVER, Note, earliest, noted, random_note
from tests.shim import DTYPES

EACH_TYPE = pytest.mark.parametrize("dtype", DTYPES)


@pytest.fixture(params=["op", "CUDA's text"])
def op(request):
    if request.param == "op":
        return note_nonfinite_
    if shutil.which("g++") is None:
        pytest.skip("needs g++")
    return request.getfixturevalue("kernels").note_nonfinite_


def by_loop(note: Note) -> list[int]:
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
    expected = by_loop(note)
    assert noted(note_nonfinite_, note).tolist() == expected
    assert expected != note.failed.tolist() or batch * entries < 8


@EACH_TYPE
def test_any_element_counts(op, dtype: torch.dtype) -> None:
    size, each = 700, torch.arange(700)
    for value in (math.nan, math.inf, -math.inf):
        values = torch.zeros(size, size, dtype=dtype).fill_diagonal_(value)
        found = earliest(op, values, 5 + each, each, torch.full((size,), NEVER))
        assert found == list(range(5, 705))


@EACH_TYPE
def test_the_largest_and_smallest_numbers_are_finite(op, dtype: torch.dtype) -> None:
    limits = torch.finfo(dtype)
    values = torch.tensor([[limits.max, limits.min, limits.smallest_normal / 2, -0.0]], dtype=dtype)
    assert earliest(op, values, [0], [0], [NEVER]) == [NEVER]


def test_a_sample_named_twice_keeps_the_smallest(op) -> None:
    """Whether it was noted before, or comes from another row; both orders, for the threads."""
    values, each = torch.full((9, 600), math.nan), torch.arange(9)
    k = torch.tensor([8, 3, 9, 4, 2, 7, 1, 5, 6])
    for order in (each, each.flip(0)):
        found = earliest(op, values, k[order], order % 4, [NEVER, 0, NEVER, 2])
        assert found == [2, 0, 1, 2]


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
def test_positions_that_are_asked_about(op, first, low, high, expected) -> None:
    """Three rows, all bad."""
    lowest, k = None if low is None else ints(low), ints(30, 31, 32)
    note = Note(ints(NEVER), ints(0), torch.full((3, 2), math.nan), k, first, lowest, ints(high))
    assert noted(op, note).tolist() == [expected]


@pytest.mark.parametrize("sample", [-1, 4])
def test_a_sample_that_is_not_there(sample: int) -> None:
    note = random_note(2, 3, (4,))
    note.samples[1] = sample
    expected = rf"^samples: expected values in 0\.\.3, got {sample} for entry 1$"
    with pytest.raises(ValueError, match=expected):
        note_nonfinite_(**note._asdict())
