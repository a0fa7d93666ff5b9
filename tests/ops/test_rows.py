"""The ops on rows of a teacher call, by hand: target_means, note_nonfinite_ and
response_sums. test_cuda_rows.py and test_operator.py have their twins.
"""

import math
import shutil

import pytest
import torch
from torch import Tensor

from free import Schedule
from free.models.guidance import Guidance
from free.ops import note_nonfinite_, response_sums, target_means
from free.schedule.table import Table
from tests.rows import NEVER, Note, Response, earliest, noted, random_note
from tests.shim import DTYPES

# --- target_means --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("scale", "channels", "dtype"),
    [
        (0.0, None, torch.float32),
        (0.4, 1, torch.float16),
        (1.0, 3, torch.bfloat16),
        (4.0, 4, torch.float32),
        (4.0, 3, torch.float16),
    ],
)
def test_is_what_guidance_and_table_compute(scale, channels, dtype) -> None:
    table, k = Table.of(Schedule.ddpm(20), "cpu"), torch.tensor([0, 7, 19])
    x, eps = torch.randn(3, 4, 5, 2), torch.randn(6, 4, 5, 2).to(dtype)
    result = target_means(x, eps, k, table.columns, scale, channels)
    combined = Guidance(scale, channels, 10).combine(eps.float())
    torch.testing.assert_close(result.eps, combined, rtol=0, atol=0)
    guess = table.guess(k, x, combined)
    torch.testing.assert_close(result.guess, guess, rtol=0, atol=0)
    torch.testing.assert_close(result.means, table.mean(k, x, guess), rtol=0, atol=0)
    assert torch.equal(result.sigma, table.sigma[k])


def test_a_guess_is_limited_and_its_mean_with_it() -> None:
    schedule = Schedule.ddpm(20)
    x, eps, k = torch.randn(3, 4, 5, 2), torch.randn(3, 4, 5, 2), torch.tensor([0, 7, 19])
    table = Table.of(schedule, "cpu")
    free = target_means(x, eps, k, table.columns)
    result = target_means(x, eps, k, table.columns, clip=0.5)
    assert torch.equal(result.guess, free.guess.clamp(-0.5, 0.5))
    assert (free.guess.abs() > 0.5).any()
    assert torch.equal(result.means, table.mean(k, x, result.guess))
    assert torch.equal(result.eps, free.eps)


def test_a_share_of_the_guidance() -> None:
    """0 is what the network says with the label, to the bit; a half is half the difference."""
    table = Table.of(Schedule.ddpm(20), "cpu")
    columns = table.columns.clone()
    columns[7, [0, 7, 19]] = torch.tensor([0.0, 0.5, 1.0])
    x, eps, k = torch.randn(3, 4, 2), torch.randn(6, 4, 2), torch.tensor([0, 7, 19])
    result = target_means(x, eps, k, columns, 4.0)
    assert torch.equal(result.eps[0], eps[0])
    torch.testing.assert_close(result.eps[1], eps[3] + 2.5 * (eps[2] - eps[3]))
    assert torch.equal(result.eps[2], target_means(x, eps, k, table.columns, 4.0).eps[2])


@pytest.mark.parametrize("k", [-1, 2, 2**40])
def test_a_transition_that_is_not_there(k: int) -> None:
    x = torch.randn(2, 3)
    with pytest.raises(ValueError, match=rf"^k: expected values in 0\.\.1, got {k} for row 1$"):
        target_means(x, x, torch.tensor([0, k]), torch.rand(8, 2))


# --- note_nonfinite_ -----------------------------------------------------------------------------


EACH_TYPE = pytest.mark.parametrize("dtype", DTYPES)


@pytest.fixture(params=["op", "CUDA's text"])
def op(request):
    if request.param == "op":
        return note_nonfinite_
    if shutil.which("g++") is None:
        pytest.skip("needs g++")
    return request.getfixturevalue("kernels").note_nonfinite_


@EACH_TYPE
def test_any_element_counts(op, dtype: torch.dtype) -> None:
    size, each = 520, torch.arange(520)  # of a kernel's chunk and a few more
    for value in (math.nan, math.inf, -math.inf):
        values = torch.zeros(size, size, dtype=dtype).fill_diagonal_(value)
        found = earliest(op, values, 5 + each, each, torch.full((size,), NEVER))
        assert found == list(range(5, 525))


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


# --- response_sums -------------------------------------------------------------------------------


def unit(advance: int, length: int, known: int, memory: float = 0.0) -> Response:
    """One sample, four rows a window: transition j moves by 10^j, and is followed twice as far."""
    steps = torch.tensor([[[1.0], [10.0], [100.0], [1000.0]]])
    return Response(
        steps,
        2.0 * steps,
        torch.zeros(5, 1),
        torch.zeros(5, 1),
        torch.tensor([[4, 1, 0, 3, 2]]),
        torch.tensor([known]),
        torch.tensor([length], dtype=torch.int32),
        torch.tensor([advance], dtype=torch.int32),
        torch.tensor([8.0]),
        torch.tensor([4.0]),
        memory,
    )


@pytest.mark.parametrize(
    ("advance", "length", "known", "expected"),
    [
        *((1, 4, 4, 1.0), (2, 4, 4, 101.0), (3, 4, 4, 10101.0)),
        # The last transition was not drafted,
        *((4, 4, 4, 10101.0), (3, 3, 5, 101.0), (2, 2, 5, 1.0), (1, 1, 5, 0.0)),
        # nor was more of it seen before.
        *((4, 4, 3, 101.0), (4, 4, 2, 1.0), (4, 4, 1, 0.0), (4, 4, 0, 0.0)),
    ],
)
def test_what_counts_and_what_fades(advance, length, known, expected) -> None:
    for memory in (0.0, 0.25, 0.5):
        dot, square = response_sums(**unit(advance, length, known, memory)._asdict())
        assert (dot.item(), square.item()) == (8 * memory + 2 * expected, 4 * memory + expected)


def test_each_transition_meets_its_own_past() -> None:
    response = unit(4, 4, 5)
    response.past_x[:, 0] = torch.tensor([3.0, 0.5, math.nan, 40.0, math.nan])
    response.past_guess[:, 0] = torch.tensor([20.0, 1.0, math.nan, 190.0, math.nan])
    dot, square = response_sums(**response._asdict())
    assert square.item() == 0.5**2 + 7.0**2 + 60.0**2
    assert dot.item() == 0.5 * 1.0 + 7.0 * 0.0 + 60.0 * 10.0


def test_sums_of_what_has_no_square_in_float32() -> None:
    response = unit(1, 4, 4)
    response.states[:] = 1e-25
    response.guess[:] = 1e25
    dot, square = response_sums(**response._asdict())
    assert dot.item() == pytest.approx(1.0)
    assert square.item() == 0.0


@pytest.mark.parametrize("row", [-1, 5])
def test_a_row_that_counts_must_be_there(row: int) -> None:
    response = unit(3, 4, 4)
    response.row[0, 3] = row
    expected = rf"^row: expected values in 0\.\.4, got {row} for sample 0, entry 3$"
    with pytest.raises(ValueError, match=expected):
        response_sums(**response._asdict())
    response.row[0, 4] = response.row[0, 0] = row  # these are not looked at
    response.row[0, 3] = 3
    assert float(response_sums(**response._asdict()).dot) == 20202.0
