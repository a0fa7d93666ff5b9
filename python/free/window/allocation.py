"""Which samples get the rows of a round, and how many rows there are to be."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "Allocation",
    "Cost",
    "allocate",
    "later_worth",
]

Cost = Callable[[NDArray[np.int64], NDArray[np.int64]], NDArray[np.float64]]


class Allocation(NamedTuple):
    """Rows for each sample.

    Attributes
    ----------
    drafts : ndarray, shape [B], int64
        Rows besides the current state's.
    advance : float
        Transitions that the round is expected to make, of all samples.
    seconds : float
        What it is expected to take.
    """

    drafts: NDArray[np.int64]
    advance: float
    seconds: float


def allocate(worth: NDArray[np.float64], cost: Cost) -> Allocation:
    """The speculative round that makes most transitions a second.

    A draft is worth the probability that it and all before it stand, so the drafts worth most are
    the first of each sample, and taking them in order of their worth leaves one number to choose:
    how many.

    Parameters
    ----------
    worth : ndarray, shape [B, P]
        As of :func:`free.window.acceptance.reached`, falling; 0 where there is no draft.
    cost : callable
        ``cost(drafts [M], longest [M]) -> seconds [M]`` of rounds with so many drafts, the longest
        window having so many.

    Returns
    -------
    Allocation
        With at least one draft, if a sample can have one; else without any.
    """
    samples, places = worth.shape
    # Stable: of equal rows, as when all are certain, the nearer come first.
    order = np.argsort(-worth.T, axis=None, kind="stable")
    place, sample = np.unravel_index(order, (places, samples))
    gained = worth.T.ravel()[order]
    count = int((gained > 0).sum())
    if not count:
        nothing = np.zeros(samples, dtype=np.int64)
        return Allocation(nothing, float(samples), float(cost(nothing[:1], nothing[:1])[0]))
    advance = samples + gained[:count].cumsum()
    longest = np.maximum.accumulate(place[:count] + 1)
    seconds = cost(np.arange(1, count + 1), longest)
    best = int((advance / seconds).argmax())
    drafts = np.bincount(sample[: best + 1], minlength=samples)
    return Allocation(drafts, float(advance[best]), float(seconds[best]))


Floats = NDArray[np.float64]


def later_worth(reach: Floats, known: Floats, fresh: Floats, price: float) -> Floats:
    """Transitions that each draft of a window is expected to add to the *next* one.

    If draft ``i`` is the first to be rejected, the ``m``-th row behind it is recycled for the
    ``m``-th draft of the next window, which is then kept with another probability. What a draft
    brings is what is left after its price, or nothing: then it is not made.

    Parameters
    ----------
    reach : ndarray, shape [B, P]
        Probability that a draft and all before it stand; 0 past the last transition.
    known, fresh : ndarray, shape [B, P]
        The same of a window of which the teacher has seen all, and nothing.
    price : float
        Transitions that the time of one row would make elsewhere.

    Returns
    -------
    ndarray, shape [B, P]
    """
    drafted = (known > 0.0) | (fresh > 0.0)  # the others are past the last transition
    gain = np.maximum((known - price).clip(min=0.0) - (fresh - price).clip(min=0.0), 0.0)
    first_rejected = np.where(drafted, -np.diff(reach, axis=1, prepend=1.0), 0.0)
    # later[n] is the sum over i of first_rejected[i] gain[n - i].
    places = np.arange(reach.shape[1])
    padded = np.concatenate([np.zeros_like(gain), gain], axis=1)
    shifted = padded[:, len(places) + places - places[:, None]]
    later = np.matmul(first_rejected[:, None], shifted)[:, 0]
    return np.where(drafted, later, 0.0)
