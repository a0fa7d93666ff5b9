"""roll_window_ against its twin, by hand, and the closed form."""

import math
from itertools import pairwise
from typing import Any

import pytest
import torch

from free import reference
from free.ops import roll_window_
from tests.drafts import CHANGES, Roll, random_roll
from tests.shim import same

BOTH = pytest.mark.parametrize("roll", [roll_window_, reference.roll_window_])

# --- what is computed --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("batch", "drafts", "shape"),
    [
        (1, 0, (7,)),
        (5, 1, (1,)),
        (1, 31, (16,)),
        (5, 7, (1023,)),
        (1, 7, (1025,)),
        (5, 31, (2, 1, 3, 2, 5)),
        (5, 7, (4, 32, 32)),
    ],
)
@pytest.mark.parametrize("changes", CHANGES)
def test_agrees_with_twin(batch, drafts, shape, changes) -> None:
    window = random_roll(batch, drafts, shape, changes)
    rolled = window.by(roll_window_)
    # To the bit: neither fuses a product into a sum.
    same(rolled, window.by(reference.roll_window_))
    assert bool(rolled[0].isfinite().all())


def by_hand(roll: Any, **changes: Any) -> list[list[float]]:
    """Two transitions from x = 1 of a sample of one element, the last guess having been 3."""
    rows, column = torch.tensor([[[1.0], [math.nan], [math.nan]]]), lambda *v: torch.tensor([v])
    window = Roll(
        states=rows,
        means=rows.clone(),
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
                column(4.0, 1.0, math.nan),
                column(0.5, 0.25, math.nan),
                column(-0.1, -1.0, math.nan),
            ]
        ),
        first=0,
        end=2,
    )
    return [t[0, 1:, 0].tolist() for t in window._replace(**changes).by(roll)]


@BOTH
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
        (1, "eps", [10.0, 28.0], [7.0, 7.5]),
        (0, "eps", [10.0, 28.0], [7.0, 7.5]),
    ],
)
def test_two_transitions_by_hand(roll, settled, says, guesses, states) -> None:
    said = {"change": torch.tensor([[[40.0], [5.0]]]), "settled": torch.tensor([settled or 0])}
    if says == "eps":
        said |= {"states": torch.tensor([[[1.0], [2.0], [math.nan]]])}
    rolled = by_hand(roll, **({} if settled is None else said | {"says": says}))
    assert rolled[2] == pytest.approx(guesses, rel=1e-6)
    assert rolled[0] == pytest.approx(states, rel=1e-6)
    assert settled is not None or rolled[1] == [3.0, 12.0]


@BOTH
def test_constant_guess_without_noise_is_a_geometric_series(roll: Any) -> None:
    a, b, drafts = 0.9, 0.3, 20
    window = random_roll(3, drafts, (5, 2))
    guess = window.intercept[:, :1].expand_as(window.intercept).contiguous()
    states, means, guesses = window._replace(
        intercept=guess,
        slope=torch.zeros(3, drafts),
        noise=torch.zeros_like(guess),
        coefficients=torch.tensor([a, b, 1.0, 1.0, 1.0]).view(5, 1, 1).expand(5, 3, 21).clone(),
    ).by(roll)
    power = a ** torch.arange(drafts + 1).double().view(-1, 1, 1)
    exact = power * window.states[:, :1] + b * (1 - power) / (1 - a) * guess[:, :1]
    torch.testing.assert_close(states.double(), exact, rtol=1e-5, atol=1e-5)
    assert torch.equal(means[:, 1:], states[:, 1:])
    assert torch.equal(guesses[:, 1:], guess)


@BOTH
def test_no_transition(roll: Any) -> None:
    for window in (random_roll(2, 0, (3,)), random_roll(2, 4, (3,), "change", span=(2, 2))):
        same(window.by(roll), window[:3])


@BOTH
@pytest.mark.parametrize("changes", CHANGES[:3])  # eps would be of states that are rolled over
def test_a_window_may_be_rolled_in_spans(roll: Any, changes: str | None) -> None:
    window = random_roll(4, 6, (3, 5), changes)
    whole = window.by(roll)
    for cuts in ((0, 1, 6), (0, 2, 2, 5, 6)):
        part = window.copy()
        for first, end in pairwise(cuts):
            before = part.copy()
            roll(**part._replace(first=first, end=end)._asdict())
            for rows, old in zip(part[:3], before[:3], strict=True):
                assert torch.equal(rows[:, : first + 1], old[:, : first + 1])
                assert bool(rows[:, end + 1 :].isnan().all())
        same(part[:3], whole)


@BOTH
@pytest.mark.parametrize("says", CHANGES[1:])
def test_each_transition_is_told_by_one_alone(roll: Any, says: str) -> None:
    """What the drafter has no say in is not read, and the other way round."""
    drafts = 5
    window = random_roll(drafts + 3, drafts, (4,), says)
    settled = torch.arange(-1, drafts + 2)
    window = window._replace(settled=settled)
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


# --- what it does not depend on ----------------------------------------------------------------


@BOTH
@pytest.mark.parametrize(
    ("where", "bad"), [("intercept", math.nan), ("change", math.inf), ("noise", -math.inf)]
)
def test_non_finite_input_stays_in_its_element(roll: Any, where: str, bad: float) -> None:
    window = random_roll(3, 6, (40,), "change")
    window = window._replace(settled=torch.full((3,), 6 if where == "intercept" else 0))
    clean = window.by(roll)
    spoiled = window.copy()
    getattr(spoiled, where)[1, 2, 17] = bad
    results = spoiled.by(roll)
    # Neither mean nor guess of a transition sees its noise; a change is of no state.
    first = {"states": 3, "means": 4 if where == "noise" else 3, "guesses": 3}
    if where == "noise":
        first["guesses"] = 7
    for name, result, other in zip(first, results, clean, strict=True):
        touched = torch.zeros_like(other, dtype=torch.bool)
        touched[1, first[name] :, 17] = True
        assert not bool(result[touched].isfinite().any())
        assert torch.equal(result[~touched], other[~touched])
