"""Block verification once more, by the formulas of docs/verification.md, in NumPy and float64.

Written apart from the kernel and its twin, with tails in logarithms and plain bisection, and in
methods, one of which each planted bug replaces.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from scipy.special import log_ndtr
from torch import Tensor

Array = np.ndarray


def residual_mass(log_p: Array, delta: Array, s: Array) -> Array:
    """Mass of ``(p phi(s - delta) - phi(s))_+`` beyond ``s``, where it is positive."""
    target = log_p + log_ndtr(delta - s)
    return np.exp(target) * -np.expm1(np.minimum(log_ndtr(-s) - target, 0))


class Block:
    """Arguments and results are those of ``verify_window``; all windows are full or shorter."""

    def uniforms(self, u: Array) -> Array:
        """Of the decisions [B, W - 1]."""
        return u

    def choose(self, stands: Array, real: Array) -> Array:
        """How many drafts stand; ``stands [B, W - 1]``: whether the first ``j + 1`` may."""
        number = np.arange(1, stands.shape[1] + 1)
        return (number * (stands & real)).max(1, initial=0)

    def share(self, log_p: Array) -> Array:
        """Log of the target's share that the residual is made with."""
        return log_p

    def noise(self, fresh: Array, own: Array) -> Array:
        """Of the repaired transition: fresh, or the draft's."""
        return fresh

    def __call__(
        self,
        states: Tensor,
        draft_means: Tensor,
        target_means: Tensor,
        sigma: Tensor,
        length: Tensor,
        uniforms: Tensor,
        noise: Tensor,
        verifier: Any = None,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        x, m_hat, m, scale, u, fresh = (
            t.double().numpy() for t in (states, draft_means, target_means, sigma, uniforms, noise)
        )
        u, rows, drafts = self.uniforms(u), np.arange(len(x)), x.shape[1] - 1
        real = np.arange(drafts) < length.numpy()[:, None] - 1
        z = (x[:, 1:] - m_hat) / scale[:, :-1, None]
        shift = (m[:, :-1] - m_hat) / scale[:, :-1, None]
        delta = np.linalg.norm(shift, axis=2)
        ratio = (z * shift).sum(2) - delta**2 / 2

        log_p = np.zeros((len(x), drafts + 1))
        for j in range(drafts):
            log_p[:, j + 1] = np.minimum(0, log_p[:, j] + ratio[:, j])
        start = delta / 2 - log_p[:, :-1] / delta
        mass = residual_mass(log_p[:, :-1], delta, start)
        h = np.exp(log_p[:, 1:])  # of the window's last draft
        inner = real[:, 1:]
        with np.errstate(invalid="ignore"):
            before = mass[:, 1:] / (mass[:, 1:] - np.expm1(log_p[:, 1:-1]))
        before = np.where(log_p[:, 1:-1] == 0, 1.0, before)
        h[:, :-1] = np.where(inner, before, h[:, :-1])
        tau = self.choose(u < h, real)

        last = tau == length.numpy() - 1
        j = np.minimum(tau, drafts - 1)
        e = shift[rows, j] / delta[rows, j, None]
        own = self.noise(fresh, z[rows, j])
        along = (own * e).sum(1)
        s = self.quantile(self.share(log_p[rows, j]), delta[rows, j], along)
        repaired = m_hat[rows, j] + scale[rows, j, None] * (own + (s - along)[:, None] * e)
        target = m[rows, tau] + scale[rows, tau, None] * fresh
        state = torch.from_numpy(np.where(last[:, None], target, repaired)).float()
        accepted = torch.from_numpy(tau).int()
        return state, accepted + 1, accepted, torch.from_numpy(ratio).float()

    def quantile(self, log_p: Array, delta: Array, along: Array) -> Array:
        low = delta / 2 - log_p / delta
        high = np.maximum(low, delta) + 12
        goal = np.exp(log_ndtr(along)) * residual_mass(log_p, delta, low)
        for _ in range(50):
            middle = (low + high) / 2
            beyond = residual_mass(log_p, delta, middle) > goal
            low, high = np.where(beyond, middle, low), np.where(beyond, high, middle)
        return (low + high) / 2


class WholeTarget(Block):
    """The residual without the factor p_tau: of the whole target, not of the share left over."""

    def share(self, log_p: Array) -> Array:
        return np.zeros_like(log_p)


class StopsAtFirstFailure(Block):
    """The drafts before the first failure stand, not those before the last success."""

    def choose(self, stands: Array, real: Array) -> Array:
        return (stands & real).cumprod(1).sum(1)


class OneUniform(Block):
    """All decisions of a window look at the same uniform."""

    def uniforms(self, u: Array) -> Array:
        return np.repeat(u[:, :1], u.shape[1], axis=1)


class ReusesDraft(Block):
    """The draft's own component along e is the uniform of the residual."""

    def noise(self, fresh: Array, own: Array) -> Array:
        return own


BUGS = [WholeTarget, StopsAtFirstFailure, OneUniform, ReusesDraft]
