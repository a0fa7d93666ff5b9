"""What rows are worth to the window after theirs."""

import numpy as np

from free.window.allocation import later_worth


def test_a_certain_window_leaves_nothing() -> None:
    one = np.ones((2, 4))
    assert later_worth(one, one, 0.5 * one, 0.0).sum() == 0


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
