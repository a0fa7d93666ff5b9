"""Rows go where they are worth most, and no further."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from free.window.allocation import allocate


def _advance(acceptance: np.ndarray, drafts: tuple[int, ...]) -> float:
    worth = acceptance.cumprod(1)
    return len(drafts) + sum(worth[b, :n].sum() for b, n in enumerate(drafts))


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("marginal", [0.05, 0.4, 1.0])
def test_as_good_as_any_allocation(seed: int, marginal: float) -> None:
    """Of all that give each of three samples up to four drafts."""
    acceptance = np.random.default_rng(seed).uniform(0, 1, (3, 4)) ** 0.5

    def cost(drafts: np.ndarray, longest: np.ndarray) -> np.ndarray:
        return 1.0 + marginal * drafts

    best = allocate(acceptance.cumprod(1), cost)
    found = _advance(acceptance, tuple(best.drafts)) / (1 + marginal * best.drafts.sum())
    assert found == pytest.approx(best.advance / best.seconds)
    others = itertools.product(range(5), repeat=3)
    assert found >= max(
        _advance(acceptance, n) / (1 + marginal * sum(n)) for n in others if sum(n)
    ) * (1 - 1e-12)


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
