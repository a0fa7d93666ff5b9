"""The ops that make a window, by hand: window_noise, first_guesses and roll_window_.

test_cuda_windows.py and test_operator.py have their twins.
"""

import math
from itertools import pairwise
from typing import Any

import pytest
import torch

from free import reference
from free.ops import FirstGuesses, first_guesses, roll_window_, window_noise
from free.reference.draft import SOURCES
from free.rounds import noise as random
from tests.drafts import (
    CHANGES,
    Draws,
    Guesses,
    Roll,
    random_draws,
    random_guesses,
    random_roll,
)
from tests.shim import same

# --- window_noise --------------------------------------------------------------------------------


DRAWS = pytest.mark.parametrize("draw", [window_noise, reference.window_noise])


def assert_rows(drawn: Any, given: Draws, tolerance: float) -> None:
    """Each number is that of its sample, transition, round and purpose, drawn by itself."""
    seeds, k, rounds, widths, like, width, steps, purpose, decision = given
    noise, uniforms, last, wanted, drafted, length = drawn
    size = like.shape[1]
    assert noise.shape == (len(seeds), width - 1, size)
    assert uniforms.shape == (len(seeds), width - 1)
    assert last.shape == (len(seeds), size)
    assert wanted.tolist() == widths.minimum(steps - k).clamp(0, width).tolist()
    assert drafted.tolist() == [count - 1 for count in length.tolist()]
    assert length.tolist() == wanted.clamp(min=1).tolist()
    for b, seed in enumerate(seeds.tolist()):
        at, again = int(k[b]), 0 if rounds is None else int(rounds[b])
        for j in range(width - 1):
            row = random.normal(seed, at + j, again, purpose, (size,))
            torch.testing.assert_close(noise[b, j], row[0], rtol=tolerance, atol=tolerance)
            assert uniforms[b, j] == random.uniform(seed, at + j, again, decision, ())
        end = int(length[b]) - 1
        row = random.normal(seed, at + end, again, purpose, (size,))
        torch.testing.assert_close(last[b], row[0], rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize(
    ("batch", "width", "size", "rounds"),
    [
        (1, 1, 1, False),
        (1, 2, 3, True),
        (3, 5, 4, False),
        (3, 5, 5, True),
        (3, 5, 64, True),
        (1, 2, 130, False),
    ],
)
def test_rows_are_those_of_their_transitions(batch, width, size, rounds) -> None:
    given = random_draws(batch, width, size, rounds)
    drawn = window_noise(**given._asdict())
    assert_rows(drawn, given, 0.0)
    twin = reference.window_noise(**given._asdict())
    assert_rows(twin, given, 3e-6)
    assert torch.equal(drawn.uniforms, twin.uniforms)


@DRAWS
def test_a_width_out_of_range_counts_as_the_nearest(draw: Any) -> None:
    widths = torch.tensor([-(2**63), 0, 1, 4, 2**63 - 1])
    given = random_draws(5, 4, 6)._replace(widths=widths)
    noise, _, last, wanted, drafted, length = draw(**given._asdict())
    assert wanted.tolist() == [0, 0, 1, 4, 4]
    assert drafted.tolist() == [0, 0, 0, 3, 3]
    assert length.tolist() == [1, 1, 1, 4, 4]
    assert torch.equal(last[:3], noise[:3, 0])
    beyond = draw(**given._replace(k=given.k + 3, width=1)._asdict())[2]
    assert torch.equal(last[3:], beyond[3:])


@DRAWS
@pytest.mark.parametrize("asked", [None, 3, 2])
def test_no_window_goes_beyond_the_schedule(draw: Any, asked: int | None) -> None:
    k = torch.tensor([0, 6, 7, 8, 9, 10, 11])
    widths = None if asked is None else torch.full_like(k, asked)
    given = random_draws(7, 3, 6)._replace(k=k, widths=widths, steps=10)
    wanted = [min(asked or 3, left) for left in (3, 3, 3, 2, 1, 0, 0)]
    drawn = draw(**given._asdict())
    assert drawn.wanted.tolist() == wanted
    assert drawn.length.tolist() == [max(count, 1) for count in wanted]


def test_no_sample() -> None:
    given = random_draws(1, 3, 4)
    none = {k: t[:0] if isinstance(t, torch.Tensor) else t for k, t in given._asdict().items()}
    shapes = [tuple(t.shape) for t in window_noise(**none)]
    assert shapes == [(0, 2, 4), (0, 2), (0, 4), (0,), (0,), (0,)]


@pytest.mark.parametrize(
    ("name", "value", "most"),
    [("k", -1, 2**32 - 3), ("k", 2**32 - 2, 2**32 - 3), ("rounds", 2**32, 2**32 - 1)],
)
def test_counters_out_of_range(name: str, value: int, most: int) -> None:
    given = random_draws(2, 3, 4)._asdict()
    given[name] = torch.tensor([0, value])
    expected = rf"^{name}: expected values in 0\.\.{most}, got {value} for sample 1$"
    with pytest.raises(ValueError, match=expected):
        window_noise(**given)


# --- first_guesses -------------------------------------------------------------------------------


GUESSES = pytest.mark.parametrize("guess", [first_guesses, reference.first_guesses])


def one(**changes: Any) -> Guesses:
    """A sample of one element at transition 3 of 6: of two drafts the teacher has seen one."""
    columns = torch.arange(48.0).view(8, 6)
    columns[6] = torch.tensor([9.0, 9.0, 9.0, 0.5, 9.0, 9.0])
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


@GUESSES
def test_a_window_by_hand(guess: Any) -> None:
    made = guess(**one()._asdict())
    assert made.states[:, 0].item() == 5.0
    assert made.guesses[:, 0].item() == 10.0
    assert made.mean_before.item() == 2 * 1.0 + 8 * 10.0  # of transition 2
    assert made.slope.tolist() == [[0.25, 0.0]]
    assert made.intercept.flatten().tolist() == [39.0, 20.0]
    assert made.settled.tolist() == [1]
    assert made.at.tolist() == [[3, 4, 5]]
    first = torch.arange(3, 39, 6)
    assert made.coefficients.tolist() == (first[:, None, None] + torch.arange(3)).tolist()


@GUESSES
@pytest.mark.parametrize("drafts", [0, 5])
def test_with_noise_a_window_is_rolled_as_the_roll_rolls_it(guess: Any, drafts: int) -> None:
    roll = roll_window_ if guess is first_guesses else reference.roll_window_
    given = random_guesses(7, drafts, (3, 5))
    made = guess(**given._asdict())
    window = guess(**given._replace(noise=None)._asdict())
    roll(
        *window[:3],
        given.noise,
        window.intercept,
        window.slope,
        change=None,
        settled=None,
        says="guess",
        coefficients=window.coefficients,
        clip=given.clip,
        first=0,
        end=drafts,
    )
    same(made, window)
    assert drafts == 0 or bool((made.guesses[:, 1:].abs() == 1.5).any())


@GUESSES
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


@GUESSES
@pytest.mark.parametrize(
    ("k", "at", "made"),
    [(0, [0, 1, 2], 0), (5, [5, 5, 5], 4), (9, [5, 5, 5], 5), (-4, [0, 0, 0], 0)],
)
def test_transitions_beyond_the_schedule(guess: Any, k: int, at: list[int], made: int) -> None:
    window = guess(**one(k=torch.tensor([k]))._asdict())
    assert window.at.tolist() == [at]
    assert window.coefficients[0].tolist() == [at]
    assert window.mean_before.item() == made * 1.0 + (6 + made) * 10.0


@pytest.mark.parametrize("value", [-1, 11, 2**40])
def test_a_row_that_is_not_there(value: int) -> None:
    given = random_guesses(2, 3, (4, 5))._asdict()
    row = given["row"].clone()
    row[1, 4:] = value  # of no draft
    same(first_guesses(**(given | {"row": row})), first_guesses(**given))
    row[1, 2] = value
    expected = rf"^row: expected values in 0\.\.10, got {value} for sample 1, entry 2$"
    with pytest.raises(ValueError, match=expected):
        first_guesses(**(given | {"row": row}))


# --- roll_window ---------------------------------------------------------------------------------


ROLLS = pytest.mark.parametrize("roll", [roll_window_, reference.roll_window_])


def by_hand(roll: Any, **changes: Any) -> list[list[float]]:
    """Two transitions from x = 1 of a sample of one element, the last guess having been 3."""
    rows, column = torch.tensor([[[1.0], [math.nan], [math.nan]]]), lambda *v: torch.tensor([v])
    window = Roll(
        states=rows,
        means=rows[:, 1:].clone(),
        guesses=3 * rows,
        noise=column(1.0, -3.0)[..., None],
        intercept=column(10.0, 20.0)[..., None],
        slope=column(0.0, 2.0),
        change=None,
        settled=None,
        says="guess",
        coefficients=torch.stack(
            [
                column(2.0, 0.5, math.nan),
                column(0.1, 0.25, math.nan),
                column(0.0, 0.0, math.nan),
                column(4.0, 1.0, math.nan),
                column(2.0, 4.0, math.nan),
                column(0.2, 4.0, math.nan),
            ]
        ),
        clip=None,
        first=0,
        end=2,
    )
    return [t[0, -2:, 0].tolist() for t in window._replace(**changes).by(roll)]


@ROLLS
@pytest.mark.parametrize(
    ("settled", "says", "guesses", "states"),
    [
        (None, "guess", [10.0, 34.0], [7.0, 9.0]),  # it is not asked
        (2, "change", [10.0, 34.0], [7.0, 9.0]),
        (1, "change", [10.0, 15.0], [7.0, 4.25]),
        (1, "guess", [10.0, 5.0], [7.0, 1.75]),
        (0, "change", [43.0, 48.0], [10.3, 14.15]),  # on the guess of the transition before
        (0, "guess", [40.0, 5.0], [10.0, 3.25]),
        # At states 1 and 2, as they were when it was asked: not at the 7 that follows.
        (1, "prediction", [10.0, 28.0], [7.0, 7.5]),
        (0, "prediction", [10.0, 28.0], [7.0, 7.5]),
    ],
)
def test_two_transitions_by_hand(roll, settled, says, guesses, states) -> None:
    said = {"change": torch.tensor([[[40.0], [5.0]]]), "settled": torch.tensor([settled or 0])}
    if says == "prediction":
        said |= {"states": torch.tensor([[[1.0], [2.0], [math.nan]]])}
    rolled = by_hand(roll, **({} if settled is None else said | {"says": says}))
    assert rolled[2] == pytest.approx(guesses, rel=1e-6)
    assert rolled[0] == pytest.approx(states, rel=1e-6)
    assert settled is not None or rolled[1] == [3.0, 12.0]


@ROLLS
def test_guesses_are_limited_and_the_one_before_counts(roll: Any) -> None:
    coefficients = torch.tensor([[2.0, 0.5, 0.0], [0.1, 0.25, 0.0], [0.5, -1.0, 0.0]])
    coefficients = torch.cat([coefficients, torch.zeros(3, 3)]).view(6, 1, 3)
    states, means, guesses = by_hand(roll, coefficients=coefficients, clip=11.0)
    assert guesses == [10.0, 11.0]  # 20 + 2 * 4.5 without a limit
    assert means == states == [2.0 + 1.0 + 0.5 * 3.0, 0.5 * 4.5 + 0.25 * 11.0 - 10.0]
    for says, said in (("guess", 40.0), ("change", -60.0), ("prediction", 99.0)):
        change = {"change": torch.full((1, 2, 1), said), "settled": torch.zeros(1).long()}
        coefficients[5] = 1.0
        window = torch.tensor([[[1.0], [1.0], [math.nan]]])
        more = {"says": says, "states": window, "coefficients": coefficients, "clip": 11.0}
        limit = -11.0 if says == "change" else 11.0
        assert by_hand(roll, **change, **more)[2] == [limit, limit]


@ROLLS
def test_no_transition(roll: Any) -> None:
    for window in (random_roll(2, 0, (3,)), random_roll(2, 4, (3,), "change", span=(2, 2))):
        same(window.by(roll), window[:3])


@ROLLS
@pytest.mark.parametrize("changes", CHANGES[:3])  # predictions: of states that are rolled over
def test_a_window_may_be_rolled_in_spans(roll: Any, changes: str | None) -> None:
    window = random_roll(4, 6, (3, 5), changes)
    whole = window.by(roll)
    for cuts in ((0, 1, 6), (0, 2, 2, 5, 6)):
        part = window.copy()
        for first, end in pairwise(cuts):
            before = part.copy()
            roll(**part._replace(first=first, end=end)._asdict())
            for rows, old, ahead in zip(part[:3], before[:3], (1, 0, 1), strict=True):
                assert torch.equal(rows[:, : first + ahead], old[:, : first + ahead])
                assert bool(rows[:, end + ahead :].isnan().all())
        same(part[:3], whole)


@ROLLS
@pytest.mark.parametrize("says", CHANGES[1:])
def test_each_transition_is_told_by_one_alone(roll: Any, says: str) -> None:
    """What the drafter has no say in is not read, and the other way round."""
    drafts = 5
    window = random_roll(drafts + 3, drafts, (4,), says)
    settled = torch.arange(-1, drafts + 2)
    window = window._replace(settled=settled, clip=None)
    expected = window.by(roll)
    ours = torch.arange(drafts) < settled[:, None]
    spoiled = window.copy()
    spoiled.intercept[~ours], spoiled.slope[~ours] = math.nan, math.nan
    assert spoiled.change is not None
    spoiled.change[ours] = math.nan
    same(spoiled.by(roll), expected)
    # With all of it settled the change makes no difference.
    plain = window._replace(change=None, settled=None).by(roll)
    for rows, others in zip(expected, plain, strict=True):
        assert torch.equal(rows[-2:], others[-2:])
        assert not bool((rows[:-2, -1] == others[:-2, -1]).any())
