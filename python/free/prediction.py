"""What a transition's mean is affine in: the noise eps, or the image x0 that it implies.

A state is ``x = s x0 + sqrt(1 - s^2) eps`` with ``s`` the schedule's signal, so a network that
predicts one predicts the other. From step to step the predicted x0 hardly moves, while eps must
follow the noise of every state; so wherever the schedule has an x0, drafts are guesses of it.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from free.schedule import Table

__all__ = ["Prediction", "eps_from_image", "image_from_eps"]


def image_from_eps(x: Tensor, eps: Tensor, signal: Tensor) -> Tensor:
    """x0 = (x - sqrt(1 - signal^2) eps) / signal, for x = signal x0 + sqrt(1 - signal^2) eps.

    Parameters
    ----------
    x, eps : Tensor, shape [R, ...]
    signal : Tensor, shape [R]
        sqrt(abar) of each row, in (0, 1).
    """
    signal = signal.view([-1] + [1] * (x.dim() - 1))
    return (x - (1.0 - signal.square()).sqrt() * eps) / signal


def eps_from_image(x: Tensor, x0: Tensor, signal: Tensor) -> Tensor:
    """The inverse of :func:`image_from_eps`: eps = (x - signal x0) / sqrt(1 - signal^2)."""
    signal = signal.view([-1] + [1] * (x.dim() - 1))
    return (x - signal * x0) / (1.0 - signal.square()).sqrt()


class Prediction(NamedTuple):
    """A table in terms of what drafts guess: ``mean = a x + b guess``.

    The guess is x0 where the schedule is variance-preserving, else eps.

    Attributes
    ----------
    a, b, sigma : Tensor, shape [N], float32
    signal : Tensor or None, shape [N], float32
        None where the guess is eps.
    """

    a: Tensor
    b: Tensor
    sigma: Tensor
    signal: Tensor | None

    @classmethod
    def of(cls, table: Table) -> Prediction:
        """The table's coefficients, rewritten for x0 if it can be."""
        if not table.is_variance_preserving():
            return cls(table.a, table.b, table.sigma, None)
        # mean = a x + b (x - s x0) / n: b / n and s / n are large at the ends.
        s = table.signal.double()
        n = (1.0 - s.square()).sqrt()
        a, b = table.a.double() + table.b.double() / n, -table.b.double() * s / n
        return cls(a.float(), b.float(), table.sigma, table.signal)

    def from_eps(self, k: Tensor, x: Tensor, eps: Tensor) -> Tensor:
        """What ``eps [R, ...]`` at states ``x [R, ...]`` of transitions ``k [R]`` amounts to."""
        eps = eps.float().contiguous()
        return eps if self.signal is None else image_from_eps(x, eps, self.signal[k])

    def largest_response(self, k: Tensor) -> Tensor:
        """By how much a guess can follow its state, at most, like ``k``; the least is 0.

        Between an x0 that stays and an eps that stays lies every denoiser of Gaussian data. A
        larger response, as a few noisy transitions may suggest, would blow up along a window.
        """
        if self.signal is not None:
            return 1.0 / self.signal[k]
        return self.a[k] / self.b[k].abs()

    def mean(self, k: Tensor, x: Tensor, guess: Tensor) -> Tensor:
        """Mean of transition ``k [R]`` from ``x [R, ...]`` given ``guess [R, ...]``."""
        axes = [-1] + [1] * (x.dim() - 1)
        return torch.addcmul(self.a[k].view(axes) * x, self.b[k].view(axes), guess)
