"""Rows go where they are worth most, and no further."""

import itertools

import numpy as np
import pytest

from free.window.allocation import allocate, later_worth


@pytest.mark.parametrize(("seed", "marginal"), [(0, 0.05), (1, 0.05), (2, 0.4), (3, 0.4), (4, 1.0)])
def test_as_good_as_any_allocation(seed: int, marginal: float) -> None:
    """Compared with all that give each of three samples up to four drafts."""
    worth = (np.random.default_rng(seed).uniform(0, 1, (3, 4)) ** 0.5).cumprod(1)

    def speed(drafts: tuple[int, ...]) -> float:
        advance = 3 + sum(worth[b, :n].sum() for b, n in enumerate(drafts))
        return advance / (1.0 + marginal * sum(drafts))

    best = allocate(worth, lambda drafts, longest: 1.0 + marginal * drafts)
    assert speed(tuple(best.drafts)) == pytest.approx(best.advance / best.seconds)
    others = [speed(n) for n in itertools.product(range(5), repeat=3) if sum(n)]
    assert best.advance / best.seconds >= max(others) * (1 - 1e-12)


def test_certain_drafts_are_shared_evenly() -> None:
    best = allocate(np.ones((2, 3)), lambda drafts, longest: 1.0 + 0.01 * drafts + longest**4)
    assert best.drafts.tolist() == [1, 1]


def test_the_longest_window_is_paid_for() -> None:
    acceptance = np.array([[0.9, 0.9, 0.9], [0.1, 0.1, 0.1]])
    best = allocate(
        acceptance.cumprod(1), lambda drafts, longest: 1.0 + 0.0 * drafts + 10.0 * (longest > 1)
    )
    assert best.drafts.max() == 1


def test_nothing_to_draft() -> None:
    best = allocate(np.zeros((2, 3)), lambda drafts, longest: 1.0 + drafts)
    assert best.drafts.tolist() == [0, 0]
    assert (best.advance, best.seconds) == (2.0, 1.0)


def test_behind_a_certain_rejection_rows_are_worth_what_they_add() -> None:
    """The first draft fails: its own row is the next window's first draft, and so on."""
    none, known, fresh = np.zeros((1, 3)), np.array([[0.9, 0.8, 0.7]]), np.array([[0.5, 0.2, 0.1]])
    np.testing.assert_allclose(later_worth(none, known, fresh, 0.0), known - fresh)
    # A fresh row of .2 or .1 would not be bought for .3.
    np.testing.assert_allclose(later_worth(none, known, fresh, 0.3), [[0.4, 0.5, 0.4]])
    assert later_worth(none, known, fresh, 1.0).sum() == 0


def test_past_the_last_transition_there_is_nothing() -> None:
    end = np.array([[1.0, 1.0, 0.0, 0.0]])
    later = later_worth(0.5 * end, 0.9 * end, 0.1 * end, 0.0)
    assert (later[0, :2] > 0).all()
    assert later[0, 2:].sum() == 0


def test_simulated() -> None:
    """Rows behind the first rejection, for the drafts of the next window."""
    generator = np.random.default_rng(0)
    single = np.array([0.9, 0.6, 0.8, 0.5])
    reach, known, fresh = single.cumprod(), 0.95 ** np.arange(1, 5), 0.4 ** np.arange(1, 5)
    stands = generator.random((200_000, 4)) < single
    first = np.where(stands.all(1), 4, (~stands).argmax(1))
    expected = np.zeros(4)
    for draft in range(4):
        behind = draft - first
        expected[draft] = np.where(behind >= 0, (known - fresh)[behind.clip(0)], 0.0).mean()
    found = later_worth(reach[None], known[None], fresh[None], 0.0)[0]
    np.testing.assert_allclose(found, expected, atol=0.005)
