"""Which samples get the rows of a round, and how many rows there are to be."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

#: ``cost(drafts [M], longest [M]) -> seconds [M]``: of rounds with so many drafts, the longest
#: window having so many.
Cost = Callable[[Integers, Integers], Floats]


class Allocation(NamedTuple):
    """Rows for each sample.

    Attributes
    ----------
    drafts : ndarray, shape [B], int64
        Rows besides the current state's.
    advance, seconds : float
        Transitions that the round is expected to make, of all samples, and its time.
    """

    drafts: Integers
    advance: float
    seconds: float


def allocate(worth: Floats, cost: Cost) -> Allocation:
    """Choose the speculative round that makes most transitions a second.

    A draft is worth the probability that it and all before it stand, so the drafts worth most are
    the first of each sample. Taken in order of their worth, only their number is left to choose.

    Parameters
    ----------
    worth : ndarray, shape [B, P]
        From :func:`free.window.acceptance.reached`: falling; 0 where there is no draft.
    cost : callable
        See :data:`Cost`.

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
        none = np.zeros(samples, dtype=np.int64)
        return Allocation(none, float(samples), float(cost(none[:1], none[:1])[0]))
    advance = samples + gained[:count].cumsum()
    longest = np.maximum.accumulate(place[:count] + 1)
    seconds = cost(np.arange(1, count + 1), longest)
    best = int((advance / seconds).argmax())
    drafts = np.bincount(sample[: best + 1], minlength=samples)
    return Allocation(drafts, float(advance[best]), float(seconds[best]))


def later_worth(reach: Floats, known: Floats, fresh: Floats, price: float) -> Floats:
    """Transitions that each draft of a window is expected to add to the *next* window.

    If draft ``i`` is the first to be rejected, the ``m``-th row behind it is recycled for the
    ``m``-th draft of the next window, which then stands with another probability. A draft of the
    next window is worth its probability less its price; one that is worth less than 0 is not made.

    Parameters
    ----------
    reach : ndarray, shape [B, P]
        Probability that a draft and all before it stand; 0 past the last transition.
    known, fresh : ndarray, shape [B, P]
        The same probability in a window of which the teacher has seen all, or nothing.
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
