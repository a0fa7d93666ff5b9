"""A schedule on the device that holds the states.

Transitions are written in terms of a *guess*: the image x0 that a prediction tells, wherever the
schedule says how, else the prediction itself. From step to step the predicted x0 hardly moves,
while a prediction of the noise must follow the noise of every state; so drafts are guesses of x0,
and the target's mean is made of the same guess.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from free.schedule.clipping import Clipping
from free.schedule.schedule import Mixture, Schedule


class Table(NamedTuple):
    """A schedule as tensors: ``mean = a x + b guess + c guess_before``, ``guess = p x + q y``.

    Attributes
    ----------
    timesteps : Tensor, shape [N], int64 or float64
    columns : Tensor, shape [8, N], float32
        ``a``, ``b``, ``c``, ``sigma``, ``p``, ``q``; by how much a guess can follow its state, at
        most; and how much of a guidance counts. The least that a guess follows is 0. Between an x0
        that stays and an eps that stays lies every denoiser of Gaussian data. A larger response,
        as a few noisy transitions may suggest, would blow up along a window.
    sigma : Tensor, shape [N], float32
        A view of its column.
    signal, noise : Tensor, shape [N], float32
        Of the schedule.
    spread : Tensor, shape [N], float32
        ``log(upper / sigma)``; 0 where there is no ``mixture``.
    mixture : callable or None
    images : bool
        Whether guesses are images.
    clipping : Clipping or None
        How guesses are limited.
    input_scale : Tensor, shape [N], float32, or None
        A network is given the state times this.
    history : bool
        Whether any ``c`` is not 0.
    interval : bool
        Whether a guidance counts less anywhere.
    noisy : bool
        Whether every transition before the last has noise.
    """

    timesteps: Tensor
    columns: Tensor
    sigma: Tensor
    signal: Tensor
    noise: Tensor
    spread: Tensor
    mixture: Mixture | None
    images: bool
    clipping: Clipping | None
    input_scale: Tensor | None
    history: bool
    interval: bool
    noisy: bool

    @classmethod
    def of(cls, schedule: Schedule, device: torch.device | str) -> Table:
        """Copy ``schedule`` to ``device``."""
        s, spread = schedule, np.zeros(len(schedule))
        if s.upper is not None:
            np.log(s.upper / np.where(s.sigma > 0, s.sigma, 1.0), out=spread, where=s.sigma > 0)
        images = s.image is not None or bool(((s.signal > 0) & (s.noise > 0))[:-1].all())
        none, every = np.zeros(len(s)), np.ones(len(s))
        rows = [*_law(s, images), every if s.guided is None else s.guided]
        c = none if s.c is None else s.c
        columns = _on(np.stack([rows[0], rows[1], c, s.sigma, *rows[2:]]), device)
        return cls(
            timesteps=torch.from_numpy(s.timesteps.copy()).to(device),
            columns=columns,
            sigma=columns[3],
            signal=_on(s.signal, device),
            noise=_on(s.noise, device),
            spread=_on(spread, device),
            mixture=s.mixture,
            images=images,
            clipping=s.clipping,
            input_scale=None if s.input_scale is None else _on(s.input_scale, device),
            history=bool(np.any(c)),
            interval=bool((rows[-1] != 1).any()),
            noisy=bool((s.sigma[:-1] > 0).all()),
        )

    @property
    def clip(self) -> float | None:
        """The largest guess, where that is one number for all rows."""
        fixed = self.clipping is not None and self.clipping.quantile is None
        return self.clipping.largest if self.clipping is not None and fixed else None

    @property
    def affine(self) -> bool:
        """Whether coefficients alone say how a window is rolled: one sigma a transition, guesses
        without limits, networks that are given the states, nothing of the transition before.
        """
        simple = self.mixture is None and self.clipping is None and self.input_scale is None
        return simple and not self.history

    @property
    def of_prediction(self) -> Tensor:
        """What the mean takes of a prediction that is not limited, [N]."""
        return self.columns[1] * self.columns[5]

    def require_image(self) -> None:
        """Raise a ValueError unless guesses are images, for drafters that turn one into y."""
        if not self.images:
            raise ValueError(
                "schedule must have signal and noise > 0 for this drafter, so that eps tells x0, "
                f"got signal {self.signal[:-1].min():g}..{self.signal[:-1].max():g} and "
                f"noise {self.noise[:-1].min():g}..{self.noise[:-1].max():g}"
            )

    def time(self, k: Tensor) -> Tensor:
        """What a network is told the time is at transitions ``k``: int64, or float32."""
        t = self.timesteps[k]
        return t.float() if t.is_floating_point() else t

    def network_input(self, k: Tensor, x: Tensor) -> Tensor:
        """What a network is given of states ``x [R, ...]`` of transitions ``k [R]``."""
        return x if self.input_scale is None else _like(self.input_scale[k], x) * x

    @property
    def words(self) -> Tensor:
        """Timesteps as ops copy them, whatever 64 bits they are: [N] int64."""
        return self.timesteps.view(torch.int64)

    def times(self, words: Tensor) -> Tensor:
        """What a network is told the time is, from copies of ``words``: int64, or float32."""
        times = self.timesteps
        return words.view(times.dtype).float() if times.is_floating_point() else words

    def sigma_at(self, k: Tensor, x: Tensor) -> Tensor:
        """Standard deviation [R] of transition ``k [R]`` from ``x [R, ...]``.

        Draft and target have the same because both start from the same state.
        """
        sigma = self.sigma[k]
        if self.mixture is None:
            return sigma
        weight = self.mixture(x, self.time(k))
        if not isinstance(weight, Tensor) or weight.shape != k.shape:
            got = list(weight.shape) if isinstance(weight, Tensor) else repr(weight)
            raise ValueError(f"mixture must return one weight a row, {list(k.shape)}, got {got}")
        noisy = sigma > 0  # the last transition is not; its weight means nothing
        if not bool((finite := weight.isfinite() | ~noisy).all()):
            raise FloatingPointError(
                f"mixture returned a non-finite weight at step {sorted(set(k[~finite].tolist()))}"
            )
        return torch.where(noisy, sigma * torch.exp(weight.float() * self.spread[k]), 0.0)

    def guess(self, k: Tensor, x: Tensor, y: Tensor) -> Tensor:
        """The guess that a prediction ``y [R, ...]`` is at states ``x [R, ...]`` of transitions
        ``k [R]``, as limited.
        """
        p, q = (_like(column, x) for column in self.columns[4:6, k])
        guess = p * x + q * y.float()
        return guess if self.clipping is None else self.clipping(guess)

    def prediction(self, k: Tensor, x: Tensor, guess: Tensor) -> Tensor:
        """The inverse of :meth:`guess`, of one within the limits."""
        p, q = (_like(column, x) for column in self.columns[4:6, k])
        return (guess - p * x) / q

    def mean(self, k: Tensor, x: Tensor, guess: Tensor, before: Tensor | None = None) -> Tensor:
        """Mean of transition ``k [R]`` from ``x [R, ...]`` given ``guess [R, ...]``, and that of
        the transition ``before``, where it counts; without, what it would add is left out.
        """
        a, b, c = (_like(column, x) for column in self.columns[:3, k])
        mean = a * x + b * guess
        return mean if before is None else torch.addcmul(mean, c, before)


def _law(s: Schedule, images: bool) -> list[np.ndarray]:
    """``a``, ``b``, ``p``, ``q``, float64 [N], and the largest response."""
    largest = np.divide(1.0, s.signal, out=np.zeros(len(s)), where=s.signal > 0)
    if s.image is not None:
        return [s.a, s.b, *s.image, largest]
    none, every = np.zeros(len(s)), np.ones(len(s))
    if not images:
        follows = np.divide(s.a, np.abs(s.b), out=none.copy(), where=s.b != 0)
        return [s.a, s.b, none, every, np.clip(follows, 0.0, None)]
    # mean = a x + b (x - s x0) / n; the last transition may have no image of its own.
    told = (s.signal > 0) & (s.noise > 0)
    signal, noise = np.where(told, s.signal, 1.0), np.where(told, s.noise, 1.0)
    a, b = np.where(told, s.a + s.b / noise, s.a), np.where(told, -s.b * signal / noise, s.b)
    p, q = np.where(told, 1.0 / signal, none), np.where(told, -noise / signal, every)
    return [a, b, p, q, largest]


def image_from_eps(x: Tensor, eps: Tensor, signal: Tensor, noise: Tensor | None = None) -> Tensor:
    """x0 = (x - noise eps) / signal, for x = signal x0 + noise eps.

    Of each row ``signal`` and ``noise`` [R] are > 0; by default ``noise = sqrt(1 - signal^2)``,
    with a signal below 1.
    """
    signal, noise = _per_row(x, signal, noise)
    return (x - noise * eps) / signal


def eps_from_image(x: Tensor, x0: Tensor, signal: Tensor, noise: Tensor | None = None) -> Tensor:
    """The inverse of :func:`image_from_eps`: eps = (x - signal x0) / noise."""
    signal, noise = _per_row(x, signal, noise)
    return (x - signal * x0) / noise


def _per_row(x: Tensor, signal: Tensor, noise: Tensor | None) -> tuple[Tensor, Tensor]:
    noise = (1.0 - signal.square()).sqrt() if noise is None else noise
    return _like(signal, x), _like(noise, x)


def _like(column: Tensor, x: Tensor) -> Tensor:
    """``column [R]`` with axes to broadcast over rows ``x [R, ...]``."""
    return column.view([-1] + [1] * (x.dim() - 1))


def _on(column: np.ndarray, device: torch.device | str) -> Tensor:
    return torch.tensor(column, dtype=torch.float32, device=device)
