"""What a transition's mean is affine in: the noise eps, or the image x0 that it implies.

A state is ``x = s x0 + n eps`` with the schedule's signal and noise, so a network that predicts
one predicts the other. Of a network that predicts a velocity, eps is that: ``x = x0 + t v``. From
step to step the predicted x0 hardly moves, while eps must follow the noise of every state; so
wherever the schedule has an x0, drafts are guesses of it.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from free.schedule import Table

__all__ = ["Prediction", "eps_from_image", "image_from_eps"]


def image_from_eps(x: Tensor, eps: Tensor, signal: Tensor, noise: Tensor | None = None) -> Tensor:
    """x0 = (x - noise eps) / signal, for x = signal x0 + noise eps.

    Parameters
    ----------
    x, eps : Tensor, shape [R, ...]
    signal, noise : Tensor, shape [R]
        Of each row, > 0; by default ``noise = sqrt(1 - signal^2)``, with a signal below 1.
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


class Prediction(NamedTuple):
    """A table in terms of what drafts guess: ``mean = a x + b guess``.

    The guess is x0 where the schedule says how it follows from eps, else eps.

    Attributes
    ----------
    a, b, sigma : Tensor, shape [N], float32
    signal : Tensor or None, shape [N], float32
        None where the guess is eps.
    table : Table
        As it was.
    columns : Tensor, shape [4, N], float32
        ``a``, ``b`` and ``sigma``, which are views of it, and by how much a guess can follow its
        state, at most; the least is 0. Between an x0 that stays and an eps that stays lies every
        denoiser of Gaussian data. A larger response, as a few noisy transitions may suggest, would
        blow up along a window.
    """

    a: Tensor
    b: Tensor
    sigma: Tensor
    signal: Tensor | None
    table: Table
    columns: Tensor

    @classmethod
    def of(cls, table: Table) -> Prediction:
        """The table's coefficients, rewritten for x0 if it can be."""
        if not table.has_image():
            own = (table.a, table.b, table.sigma)
            return cls(*own, None, table, torch.stack([*own, table.a / table.b.abs()]))
        # mean = a x + b (x - s x0) / n: b / n and s / n are large at the ends.
        s, n = table.signal.double(), table.noise.double()
        a, b = table.a.double() + table.b.double() / n, -table.b.double() * s / n
        columns = torch.stack([a.float(), b.float(), table.sigma, 1.0 / table.signal])
        return cls(columns[0], columns[1], columns[2], table.signal, table, columns)

    def at(self, k: Tensor) -> tuple[Tensor, ...]:
        """``a``, ``b`` and ``sigma`` of transitions ``k``, like it; looked up at once."""
        return self.columns[:3, k].unbind()

    def from_eps(self, k: Tensor, x: Tensor, eps: Tensor) -> Tensor:
        """What ``eps [R, ...]`` at states ``x [R, ...]`` of transitions ``k [R]`` amounts to."""
        eps = eps.float().contiguous()
        if self.signal is None:
            return eps
        *_, signal, noise = self.table.at(k)
        return image_from_eps(x, eps, signal, noise)

    def mean(self, k: Tensor, x: Tensor, guess: Tensor) -> Tensor:
        """Mean of transition ``k [R]`` from ``x [R, ...]`` given ``guess [R, ...]``."""
        a, b, _ = self.at(k)
        axes = [-1] + [1] * (x.dim() - 1)
        return torch.addcmul(a.view(axes) * x, b.view(axes), guess)
