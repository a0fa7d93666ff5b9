"""response_sums against a loop over transitions."""

import math

import numpy as np
import pytest
import torch

from free.ops import response_sums
from tests.rows import Response, random_response


def summed(response: Response) -> list[tuple[float, float]]:
    """The sums of each sample, transition by transition."""
    states, guess, past_x, past_guess = (
        tensor.double().numpy().reshape(*tensor.shape[:axes], -1)
        for tensor, axes in zip(response[:4], (2, 2, 1, 1), strict=True)
    )
    found = []
    for b in range(len(states)):
        dot, square = (response.memory * float(old[b]) for old in response[8:10])
        made = int(response.advance[b])
        for j in range(made):
            drafted, seen = j < int(response.length[b]) - 1, j < int(response.known[b]) - 1
            if drafted and seen:
                row = int(response.row[b, j + 1])
                moved = states[b, j] - past_x[row]
                dot += float(np.dot(moved, guess[b, j] - past_guess[row]))
                square += float(np.dot(moved, moved))
        found.append((dot, square))
    return found


@pytest.mark.parametrize(
    ("batch", "width", "shape", "memory"),
    [
        (1, 1, (1,), 0.0),
        (1, 2, (50,), 1.0),
        (20, 2, (3, 2), 0.7),
        (9, 6, (50,), 0.7),
        (9, 6, (1,), 1.0),
    ],
)
def test_agrees_with_a_loop(batch: int, width: int, shape: tuple[int, ...], memory: float) -> None:
    response = random_response(batch, width, shape, memory=memory, seed=width)
    sums = response_sums(**response._asdict())
    expected = torch.tensor(summed(response)).unbind(1)
    assert sums.dot.dtype == sums.square.dtype == torch.float32
    torch.testing.assert_close(sums.dot, expected[0], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(sums.square, expected[1], rtol=1e-5, atol=1e-5)
    if batch * width > 8:
        assert {0, 1} <= set(response.counts())


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
