"""Relaxed verification once more, by the formulas of docs/relaxation.md, in float64.

Written apart from the kernel and its twin, draft by draft, in methods, one of which each planted
bug replaces; and how far apart two laws are, by histogram.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from free.ops import VerifiedRelaxed


class Relaxed:
    """Arguments and results are those of ``verify_window_relaxed``."""

    def slack(self, u: Tensor, strength: float, r: Tensor, uniform: Tensor) -> Tensor:
        return strength * u.clamp(min=0)

    def relaxed(self, rule: str, r: Tensor, slack: Tensor) -> Tensor:
        """The ratio to be tested; of what the target prefers, the ratio itself."""
        after = r / (1 + slack) if rule == "temper" else torch.clamp(r + slack, max=0)
        return torch.where(r < 0, after, r)

    def gain(self, r: Tensor, relaxed: Tensor) -> Tensor:
        """``a' - a``."""
        return relaxed.clamp(max=0).exp() - r.clamp(max=0).exp()

    def pays(self, spent: Tensor, gain: Tensor, budget: float) -> Tensor:
        return spent + gain <= budget

    def log_density(self, r: Tensor, relaxed: Tensor, gain: Tensor, stands: Tensor) -> Tensor:
        """Of the next state, relaxed over exact."""
        return torch.where(stands & (r < 0), relaxed - r, torch.log1p(-gain))

    def __call__(
        self,
        states: Tensor,
        draft_means: Tensor,
        target_means: Tensor,
        sigma: Tensor,
        length: Tensor,
        uniforms: Tensor,
        noise: Tensor,
        uncertainty: Tensor | None,
        spent: Tensor,
        rule: str = "allow",
        strength: float = 0.3,
        budget: float = math.inf,
    ) -> VerifiedRelaxed:
        x, m_hat, m, scale, v = (
            t.double() for t in (states, draft_means, target_means, sigma, uniforms)
        )
        going = torch.ones(len(x), dtype=torch.bool)
        accepted, total = torch.zeros_like(length), torch.zeros_like(spent)
        bound = spent.clone()
        state = (m + scale[..., None] * noise.double()[:, None])[
            torch.arange(len(x)), length.long() - 1
        ]
        ratios = torch.full_like(v, torch.nan)
        for j in range(x.shape[1] - 1):
            going = going & (length > j + 1)
            z = (x[:, j + 1] - m_hat[:, j]) / scale[:, j, None]
            shift = (m_hat[:, j] - m[:, j]) / scale[:, j, None]
            r = -(z * shift).sum(1) - shift.square().sum(1) / 2
            u = shift.norm(dim=1) if uncertainty is None else uncertainty[:, j].double()
            slack = self.slack(u, strength, r, v[:, j])
            low = -r.abs()
            mirrored = self.gain(low, self.relaxed(rule, low, slack))
            after = self.relaxed(rule, r, slack)
            gain = self.gain(r, after)
            pays = self.pays(bound, torch.where(r < 0, gain, mirrored), budget)
            stands = torch.log1p(-v[:, j]) <= torch.where(pays, after, r)
            density = self.log_density(r, after, mirrored, stands)
            bound = bound + torch.where(going & pays, gain, 0.0)
            total = total + torch.where(going & pays, density, 0.0)
            ratios[:, j] = torch.where(going, r, torch.nan)
            e = shift / shift.norm(dim=1, keepdim=True)
            mirror = m[:, j] + scale[:, j, None] * (z - 2 * (z * e).sum(1, keepdim=True) * e)
            state = torch.where((going & ~stands)[:, None], mirror, state)
            going = going & stands
            accepted = accepted + going.int()
        return VerifiedRelaxed(state.float(), accepted + 1, accepted, ratios.float(), bound, total)


class WrongSign(Relaxed):
    """The bound adds up ``a - a'``."""

    def gain(self, r: Tensor, relaxed: Tensor) -> Tensor:
        return -super().gain(r, relaxed)


class NoClip(Relaxed):
    """The ratio of what the target prefers is relaxed too, and probabilities are not cut at 1."""

    def relaxed(self, rule: str, r: Tensor, slack: Tensor) -> Tensor:
        return r / (1 + slack) if rule == "temper" else r + slack

    def gain(self, r: Tensor, relaxed: Tensor) -> Tensor:
        return relaxed.exp() - r.exp()


class OneTooLate(Relaxed):
    """The budget is held against what was spent before the draft, which itself may pass it."""

    def pays(self, spent: Tensor, gain: Tensor, budget: float) -> Tensor:
        return spent < budget


class SeesUniform(Relaxed):
    """Only what would be rejected is relaxed: the uncertainty knows the draft's own uniform."""

    def slack(self, u: Tensor, strength: float, r: Tensor, uniform: Tensor) -> Tensor:
        slack = super().slack(u, strength, r, uniform)
        return torch.where(torch.log1p(-uniform) > r, slack, 0.0)


class NoMirror(Relaxed):
    """The density forgets the mirror image, from where the relaxed mass was taken."""

    def log_density(self, r: Tensor, relaxed: Tensor, gain: Tensor, stands: Tensor) -> Tensor:
        return torch.where(stands & (r < 0), relaxed - r, 0.0)


def measured_tv(x: Tensor, y: Tensor) -> tuple[float, float]:
    """Total variation of the laws of ``x [n, d]`` and ``y [n, d]`` by histogram, and its standard
    error. ``d`` is 1 (40 bins) or 2 (12 x 12); bins hold about equally many along each axis.

    One half of the samples says which bins have more of ``x``, the other how much more: so what is
    measured does not exceed the total variation, apart from the error; the plain sum over bins
    would, by its noise. Row ``i`` of the two may be draws that depend on each other, as with one
    seed; the less they differ, the smaller the error.
    """
    pooled, count = torch.cat([x, y]), 40 if x.shape[1] == 1 else 12
    levels = torch.arange(1, count) / count
    bins = [torch.zeros(len(x), dtype=torch.int64), torch.zeros(len(x), dtype=torch.int64)]
    for axis in range(x.shape[1]):
        column = pooled[:, axis].sort().values
        edges = column[(levels * len(column)).long()]
        for side, sample in enumerate((x, y)):
            bins[side] = count * bins[side] + torch.bucketize(sample[:, axis].contiguous(), edges)
    total = count ** x.shape[1]
    half = len(x) // 2
    first = [torch.bincount(side[:half], minlength=total) for side in bins]
    more = first[0] > first[1]
    difference = more[bins[0][half:]].double() - more[bins[1][half:]].double()
    return float(difference.mean()), float(difference.std() / len(difference) ** 0.5)
