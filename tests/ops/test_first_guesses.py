"""first_guesses against its twin, a loop over transitions, and by hand."""

import math
from typing import Any

import numpy as np
import pytest
import torch

from free import reference
from free.ops import FirstGuesses, first_guesses
from free.reference.draft import SOURCES
from tests.drafts import Guesses, random_guesses, without_what_is_to_be_rolled
from tests.shim import same

BOTH = pytest.mark.parametrize("guess", [first_guesses, reference.first_guesses])
EVERY = pytest.mark.parametrize("source", SOURCES)


def written(made: Any) -> FirstGuesses:
    return FirstGuesses(*without_what_is_to_be_rolled(made))


# --- what is computed --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("batch", "drafts", "shape"),
    [
        (1, 0, (1,)),
        (4, 1, (7,)),
        (9, 7, (16,)),
        (1, 31, (1025,)),
        (9, 7, (3, 5, 7)),
        (4, 31, (2, 1, 3, 2, 5)),
    ],
)
@EVERY
def test_agrees_with_twin(batch: int, drafts: int, shape: tuple[int, ...], source: str) -> None:
    given = random_guesses(batch, drafts, shape, source=SOURCES.index(source))
    # To the bit: neither fuses a product into a sum.
    same(
        written(first_guesses(**given._asdict())),
        written(reference.first_guesses(**given._asdict())),
    )


def by_loop(given: Guesses) -> dict[str, np.ndarray]:
    """Transition by transition, in double."""
    x, k, past_x, past_guess, row, known, source, dot, square, columns = (
        t.double().numpy()
        if isinstance(t, torch.Tensor) and t.is_floating_point()
        else np.asarray(t)
        for t in given[:-1]
    )
    steps, drafts = columns.shape[1], given.drafts
    a, b, *_, largest = columns
    made: dict[str, list[Any]] = {name: [] for name in FirstGuesses._fields}
    for i in range(len(x)):
        at = [min(max(k[i] + j, 0), steps - 1) for j in range(drafts + 1)]
        before = min(max(k[i] - 1, 0), steps - 1)
        old, said = past_x[row[i, 0]], past_guess[row[i, 0]]
        made["states"].append(x[i])
        made["means"].append(a[before] * old + b[before] * said)
        made["guesses"].append(said)
        made["at"].append(at)
        made["coefficients"].append(columns[:5, at])
        made["settled"].append(0 if SOURCES[source] == "drafter" else known[i] - 1)
        slopes, intercepts = [], []
        for j in range(drafts):
            slope = 0.0
            if SOURCES[source] == "response" and j < known[i] - 1:
                slope = min(max(dot[i] / max(square[i], 1e-12), 0.0), largest[at[j]])
            slopes.append(slope)
            old, said = past_x[row[i, j + 1]], past_guess[row[i, j + 1]]
            intercepts.append(said - slope * old)
        made["slope"].append(slopes)
        made["intercept"].append(intercepts)
    arrays = {name: np.array(rows) for name, rows in made.items()}
    return arrays | {"coefficients": arrays["coefficients"].swapaxes(0, 1)}


@EVERY
@BOTH
def test_agrees_with_a_loop(guess: Any, source: str) -> None:
    given = random_guesses(60, 5, (4,), source=SOURCES.index(source))
    found, expected = written(guess(**given._asdict())), by_loop(given)
    for name, value in found._asdict().items():
        np.testing.assert_allclose(value.numpy(), expected[name], 2e-6, 2e-6, err_msg=name)
    # What this is about: every way that a slope can come about.
    largest = given.columns[5, found.at[:, :5]]
    follows = torch.arange(5) < given.known[:, None] - 1
    follows = follows & (source == "response")
    slope = found.slope
    assert not bool(slope[~follows].any())
    for some in (slope == 0, slope == largest, (slope > 0) & (slope < largest)):
        assert source != "response" or int((some & follows).sum()) > 5


def one(**changes: Any) -> Guesses:
    """A sample of one element at transition 3 of 6: of two drafts the teacher has seen one."""
    columns = torch.arange(36.0).view(6, 6)
    columns[5] = torch.tensor([9.0, 9.0, 9.0, 0.5, 9.0, 9.0])
    given = Guesses(
        torch.tensor([[5.0]]),
        torch.tensor([3]),
        torch.tensor([[1.0], [2.0], [4.0]]),
        torch.tensor([[10.0], [20.0], [40.0]]),
        torch.tensor([[0, 2, 1]]),
        torch.tensor([2]),
        0,
        torch.tensor([3.0]),
        torch.tensor([12.0]),
        columns,
        2,
    )
    return given._replace(**changes)


@BOTH
def test_a_window_by_hand(guess: Any) -> None:
    made = written(guess(**one()._asdict()))
    assert made.states.item() == 5.0
    assert made.guesses.item() == 10.0
    assert made.means.item() == 2 * 1.0 + 8 * 10.0  # of transition 2
    assert made.slope.tolist() == [[0.25, 0.0]]
    assert made.intercept.flatten().tolist() == [39.0, 20.0]
    assert made.settled.tolist() == [1]
    assert made.at.tolist() == [[3, 4, 5]]
    first = torch.arange(3, 33, 6)
    assert made.coefficients.tolist() == (first[:, None, None] + torch.arange(3)).tolist()


@BOTH
@pytest.mark.parametrize(
    ("changes", "slope", "settled"),
    [
        ({}, 0.25, 1),
        ({"source": SOURCES.index("reuse")}, 0, 1),
        ({"source": SOURCES.index("drafter")}, 0, 0),
        # A slope is kept within bounds, and one that is no number stays none.
        ({"dot": -3.0}, 0, 1),
        ({"dot": 30.0}, 0.5, 1),
        ({"dot": 1e-13, "square": 0.0}, 0.1, 1),
        ({"dot": 0.0, "square": 0.0}, 0, 1),
        ({"dot": math.nan}, math.nan, 1),
        ({"square": math.nan}, math.nan, 1),
        ({"columns": math.nan}, math.nan, 1),
    ],
)
def test_what_the_sources_say(guess, changes, slope, settled) -> None:
    given = one()
    for name, value in changes.items():
        if name == "source":
            given = given._replace(source=value)
        else:
            getattr(given, name).fill_(value)
    made = FirstGuesses(*guess(**given._asdict()))
    assert made.slope.flatten().tolist() == pytest.approx([slope, 0.0], rel=1e-6, nan_ok=True)
    assert made.settled.tolist() == [settled]


@BOTH
@pytest.mark.parametrize(
    ("k", "at", "made"),
    [(0, [0, 1, 2], 0), (5, [5, 5, 5], 4), (9, [5, 5, 5], 5), (-4, [0, 0, 0], 0)],
)
def test_transitions_beyond_the_schedule(guess: Any, k: int, at: list[int], made: int) -> None:
    window = written(guess(**one(k=torch.tensor([k]))._asdict()))
    assert window.at.tolist() == [at]
    assert window.coefficients[0].tolist() == [at]
    assert window.means.item() == made * 1.0 + (6 + made) * 10.0


# --- values, on the CPU --------------------------------------------------------------------------


@pytest.mark.parametrize("value", [-1, 11, 2**40])
def test_a_row_that_is_not_there(value: int) -> None:
    given = random_guesses(2, 3, (4, 5))._asdict()
    row = given["row"].clone()
    row[1, 4:] = value  # of no draft
    same(written(first_guesses(**(given | {"row": row}))), written(first_guesses(**given)))
    row[1, 2] = value
    expected = rf"^row: expected values in 0\.\.10, got {value} for sample 1, entry 2$"
    with pytest.raises(ValueError, match=expected):
        first_guesses(**(given | {"row": row}))
