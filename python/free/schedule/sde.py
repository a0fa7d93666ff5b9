"""Tables of the reverse-time SDEs with a stochasticity (supplement, section D).

For a forward process ``dX = f X dt + g dW`` with marginals q_t and score s_t, every eps >= 0 has

    dY = (-f Y + (1 + eps^2) / 2 g^2 s(Y)) dt + eps g dW          (Eq. 37, time running backwards)

the same marginals, also if eps changes with time. An Euler-Maruyama step of length gamma is

    mean = x + gamma (-f x + (1 + eps^2) / 2 g^2 s),   sigma = eps sqrt(gamma) g       (Eq. 39)

which is a row of a table as soon as the score is written in terms of what the network predicts.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Column = NDArray[np.float64]
#: ``a``, ``b``, ``sigma``, ``signal`` and ``noise`` of a :class:`free.Schedule`, float64 [N] each.
Columns = tuple[Column, Column, Column, Column, Column]


def vp(signal: Column, stochasticity: Column) -> Columns:
    """Variance-preserving: ``f = -1/2``, ``g = 1``, ``s = -eps / noise``.

    These are f and g in a time that counts the noise so far, ``integral of beta``. In this time
    Euler-Maruyama needs the states' signals alone, ``sqrt(abar)``, rising, in (0, 1), and a table
    for few steps is closer to the SDE than one that takes beta at the ends of its steps.
    """
    gamma = 2.0 * np.log(np.append(signal[1:], 1.0) / signal)
    noise = np.sqrt(1.0 - signal**2)
    a = 1.0 + gamma / 2.0
    with np.errstate(over="ignore"):  # too large: b is infinite, which a schedule refuses
        b = -(1.0 + np.square(stochasticity)) / 2.0 * gamma / noise
    sigma = stochasticity * np.sqrt(gamma)
    a[-1], b[-1], sigma[-1] = 1.0 / signal[-1], -noise[-1] / signal[-1], 0.0  # x0
    return a, b, sigma, signal, noise


def linear(times: Column, stochasticity: Column) -> Columns:
    """Linear interpolant ``x_t = (1 - t) x0 + t n``, network predicting the velocity ``n - x0``.

    Its marginals are those of ``f = -1 / (1 - t)``, ``g^2 = 2 t / (1 - t)``. With
    ``E[n | x] = x + (1 - t) v`` the score is ``-E[n | x] / t``; a step from t to ``t - gamma`` is

        mean = x - gamma v - q E[n | x],   sigma^2 = 2 t q,   q = eps^2 gamma / (1 - t)     (Eq. 39)

    A step replaces ``q`` of the noise. Because g is unbounded at ``t = 1``, q does not get small
    there as steps get shorter, and neither does the error of Eq. 39's variance, ``q^2``. So sigma
    is corrected in second order, to ``(t - gamma - q)^2 + sigma^2 = (t - gamma)^2``: then the noise
    about a known image is right after steps of any length, as it is along DDIM's family. No step
    replaces more noise than there is.

    The velocity tells x0 too: ``x = x0 + t v``. ``times [N + 1]`` fall from at most 1 to 0.
    """
    t, after = times[:-1], times[1:]
    gamma = t - after
    with np.errstate(over="ignore"):  # as much as there is
        q = np.square(stochasticity) * gamma / np.maximum(1.0 - t, gamma)
    q = np.minimum(q, after)
    sigma = np.sqrt(q * (2.0 * after - q))
    return 1.0 - q, -gamma - q * (1.0 - t), sigma, np.ones_like(t), t
