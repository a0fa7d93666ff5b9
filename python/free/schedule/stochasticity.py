"""How much noise a law adds: one number, or one a transition.

A deterministic sampler goes from ``x = s x0 + n eps`` to ``s' x0 + n' eps``. With the stochasticity
``e`` it keeps ``sqrt(n'^2 - sigma^2)`` of the noise instead of ``n'`` and renews the rest, with

    sigma = 4 e (s' - n' s / n),

which is 4 e times the share of x0 in the mean: an error of a drafted x0 is then as many sigma at
every step, and there is most noise where it moves the image least, at the end. Of the shapes that
were tried it takes the fewest rounds at a PSNR (``benchmarks/noise_shapes.py``). The 4 makes it
about as much noise, in all steps together, as the SDE of Eq. 37 has with this stochasticity. A mean
of little noise is that of the sampler but for terms of the order of ``e^2``; no step renews more
noise than there is.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from free.arguments import as_number, shortened
from free.schedule.renewal import Column, vector

#: By stochasticity, how far images are from those of the deterministic sampler, as PSNR in
#: decibels: at 50 steps, the worst measured (benchmarks/results/deterministic.json).
EXPECTED = {0.01: 41, 0.001: 55}

#: Of the states' size: the least share of x0 that noise is made for.
_LEAST = 0.01


def amounts(
    value: Any, count: int, expected: str = "stochasticity must be finite and >= 0",
    least: float = 0.0, most: float = np.inf,
) -> Column:  # fmt: skip
    """A stochasticity that is one number or one a transition, as ``[count]`` of float64.

    Raises ValueError, what was ``expected`` and what came, for anything else and for amounts out of
    ``least .. most``.
    """
    if not np.ndim(value):
        value = value.item() if isinstance(value, np.ndarray) else value
        return np.full(count, as_number(value, expected, least, most))
    name = expected.partition(" ")[0]
    try:
        column = vector(value)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{expected}, got {shortened(value)}") from error
    if column.shape != (count,):
        raise ValueError(
            f"{name} must be a number or one a transition ({count}), got shape {column.shape}"
        )
    if (wrong := ~(np.isfinite(column) & (column >= least) & (column <= most))).any():
        k = int(wrong.argmax())
        raise ValueError(f"{expected}, got {column[k]:g} at step {k}")
    return column


def renewed(
    stochasticity: Any, signal: Column, noise: Column, after: Column, left: Column
) -> tuple[Column, Column]:
    """What is kept of the noise and what is fresh, [N] each: the root of ``left^2 - sigma^2``, and
    sigma.

    Parameters
    ----------
    stochasticity : float or array_like of float, shape [N]
        >= 0.
    signal, noise : ndarray of float64, shape [N]
        Of the states.
    after, left : ndarray of float64, shape [N]
        Signal and noise of the next states.
    """
    share = after - left * signal / noise
    # In the first steps x0 counts for next to nothing: float32 must still see the noise.
    asked = np.hypot(share, _LEAST * np.hypot(after, left))
    asked = 4.0 * amounts(stochasticity, len(signal)) * asked
    with np.errstate(over="ignore"):  # as much as there is
        decay = np.square(np.divide(asked, left, out=np.zeros_like(left), where=left > 0))
    return left * np.exp(-decay / 2.0), left * np.sqrt(-np.expm1(-decay))
