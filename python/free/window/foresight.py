"""What rows are worth to the next window, if a rejection leaves them to it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["later_worth"]

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
