"""A schedule on the device that holds the states: in the network's terms, and in the drafts'.

A state is ``x = s x0 + n eps`` with the schedule's signal and noise, so a network that predicts
one predicts the other. Of a network that predicts a velocity, eps is that: ``x = x0 + t v``. From
step to step the predicted x0 hardly moves, while eps must follow the noise of every state; so
wherever the schedule has an x0, drafts are guesses of it. :class:`Table` has the transitions by
what the network says, :class:`Prediction` by what drafts guess.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from free.schedule.schedule import Mixture, Schedule


class Table(NamedTuple):
    """A schedule as tensors, [N] float32: ``mean = a x + b eps``.

    ``spread`` is ``log(upper / sigma)``; 0 where there is no ``mixture``. ``a``, ``b``, ``sigma``,
    ``signal`` and ``noise`` are views of the rows of ``columns [5, N]``.
    """

    timesteps: Tensor
    a: Tensor
    b: Tensor
    sigma: Tensor
    signal: Tensor
    noise: Tensor
    spread: Tensor
    mixture: Mixture | None
    columns: Tensor

    @classmethod
    def of(cls, schedule: Schedule, device: torch.device | str) -> Table:
        """Copy ``schedule`` to ``device``."""
        s, spread = schedule, np.zeros(len(schedule))
        if s.upper is not None:
            np.log(s.upper / np.where(s.sigma > 0, s.sigma, 1.0), out=spread, where=s.sigma > 0)
        stacked = np.stack([s.a, s.b, s.sigma, s.signal, s.noise])
        columns = torch.tensor(stacked, dtype=torch.float32, device=device)
        log_spread = torch.tensor(spread, dtype=torch.float32, device=device)
        timesteps = torch.tensor(s.timesteps, dtype=torch.int64, device=device)
        a, b, sigma, signal, noise = columns.unbind()
        return cls(timesteps, a, b, sigma, signal, noise, log_spread, s.mixture, columns)

    def at(self, k: Tensor) -> tuple[Tensor, ...]:
        """The five columns at transitions ``k``, each of its shape; looked up at once."""
        return self.columns[:, k].unbind()

    def has_image(self) -> bool:
        """Whether, at every transition before the last, a prediction tells x0."""
        return bool(((self.signal > 0) & (self.noise > 0))[:-1].all())

    def require_image(self) -> None:
        """Raise a ValueError unless :meth:`has_image`, for drafters that turn eps into x0."""
        if not self.has_image():
            raise ValueError(
                "schedule must have signal and noise > 0 for this drafter, so that eps tells x0, "
                f"got signal {self.signal[:-1].min():g}..{self.signal[:-1].max():g} and "
                f"noise {self.noise[:-1].min():g}..{self.noise[:-1].max():g}"
            )

    def sigma_at(self, k: Tensor, x: Tensor) -> Tensor:
        """Standard deviation [R] of transition ``k [R]`` from ``x [R, ...]``.

        Draft and target have the same because both start from the same state.
        """
        sigma = self.sigma[k]
        if self.mixture is None:
            return sigma
        weight = self.mixture(x, self.timesteps[k])
        if not isinstance(weight, Tensor) or weight.shape != k.shape:
            got = list(weight.shape) if isinstance(weight, Tensor) else repr(weight)
            raise ValueError(f"mixture must return one weight a row, {list(k.shape)}, got {got}")
        noisy = sigma > 0  # the last transition is not; its weight means nothing
        if not bool((finite := weight.isfinite() | ~noisy).all()):
            raise FloatingPointError(
                f"mixture returned a non-finite weight at step {sorted(set(k[~finite].tolist()))}"
            )
        return torch.where(noisy, sigma * torch.exp(weight.float() * self.spread[k]), 0.0)

    def mean(self, k: Tensor, x: Tensor, eps: Tensor) -> Tensor:
        """Mean of transition ``k [R]`` from ``x [R, ...]`` given ``eps [R, ...]``."""
        a, b, *_ = self.at(k)
        return _affine(a, x, b, eps.float())

    def image(self, k: Tensor, x: Tensor, eps: Tensor) -> Tensor:
        """The x0 that ``eps [R, ...]`` tells at states ``x [R, ...]`` of transitions ``k [R]``."""
        *_, signal, noise = self.at(k)
        return image_from_eps(x, eps, signal, noise)

    def eps(self, k: Tensor, x: Tensor, image: Tensor) -> Tensor:
        """The inverse of :meth:`image`."""
        *_, signal, noise = self.at(k)
        return eps_from_image(x, image, signal, noise)


class Prediction(NamedTuple):
    """A table in terms of what drafts guess: ``mean = a x + b guess``.

    The guess is x0 where the schedule says how it follows from eps, else eps; then ``signal`` is
    None. ``sigma [N]`` is a view of ``columns [6, N]``, float32: ``a``, ``b``, ``sigma``, and the
    table's signal and noise. The last row is by how much a guess can follow its state, at most; the
    least is 0. Between an x0 that stays and an eps that stays lies every denoiser of Gaussian data.
    A larger response, as a few noisy transitions may suggest, would blow up along a window.
    """

    sigma: Tensor
    signal: Tensor | None
    table: Table
    columns: Tensor

    @classmethod
    def of(cls, table: Table) -> Prediction:
        """The table's coefficients, rewritten for x0 if it can be."""
        a, b, signal, limit = table.a, table.b, None, table.a / table.b.abs()
        if table.has_image():
            # mean = a x + b (x - s x0) / n: b / n and s / n are large at the ends.
            s, n = table.signal.double(), table.noise.double()
            a, b = (a.double() + b.double() / n).float(), (-b.double() * s / n).float()
            signal, limit = table.signal, 1.0 / table.signal
        columns = torch.stack([a, b, table.sigma, table.signal, table.noise, limit])
        return cls(columns[2], signal, table, columns)

    def at(self, k: Tensor) -> tuple[Tensor, ...]:
        """``a``, ``b`` and ``sigma`` at transitions ``k``, each of its shape; looked up at once."""
        return self.columns[:3, k].unbind()

    def from_eps(self, k: Tensor, x: Tensor, eps: Tensor) -> Tensor:
        """The guess that ``eps [R, ...]`` is at states ``x [R, ...]`` of transitions ``k [R]``."""
        eps = eps.float().contiguous()
        return eps if self.signal is None else self.table.image(k, x, eps)

    def mean(self, k: Tensor, x: Tensor, guess: Tensor) -> Tensor:
        """Mean of transition ``k [R]`` from ``x [R, ...]`` given ``guess [R, ...]``."""
        a, b, _ = self.at(k)
        return _affine(a, x, b, guess)


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
    axes = [-1] + [1] * (x.dim() - 1)
    return signal.view(axes), noise.view(axes)


def _affine(a: Tensor, x: Tensor, b: Tensor, y: Tensor) -> Tensor:
    """``a x + b y`` with coefficients [R] of rows [R, ...]."""
    axes = [-1] + [1] * (x.dim() - 1)
    return torch.addcmul(a.view(axes) * x, b.view(axes), y)
