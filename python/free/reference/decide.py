"""The decide phase of :func:`free.reference.verify_window`, a function for each verifier.

Draft N(m_hat, sigma^2 I) and target N(m, sigma^2 I) share their variance, so a verifier sees two
sums of each transition, one uniform, and the projection of the fresh noise (docs/verification.md).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import NamedTuple, TypeVar

import torch
from torch import Tensor

T = TypeVar("T")

_SAME_MEAN = 1e-10
_DISJOINT = 100.0
_CLOSE_MEANS = 1e-3


class Transitions(NamedTuple):
    """What is known of the drafted transitions of a batch: [B, W - 1] each, float64 but ``real``.

    ``noise_dot_shift`` is ``<x_hat - m_hat, m_hat - m> = sigma^2 <z, Delta>``, ``shift_sq`` is
    ``|m_hat - m|^2 = sigma^2 |Delta|^2``, ``fresh_noise_dot_shift`` is ``<noise, m_hat - m>``, of
    the noise that is not the draft's. ``real`` says whether there is a draft; what else is said of
    the others means nothing.
    """

    noise_dot_shift: Tensor
    shift_sq: Tensor
    fresh_noise_dot_shift: Tensor
    sigma: Tensor
    real: Tensor

    @property
    def finite(self) -> Tensor:
        """Whether state and means are."""
        return torch.isfinite(self.noise_dot_shift) & torch.isfinite(self.shift_sq)

    @property
    def same(self) -> Tensor:
        """``|Delta| <= 1e-10``; for sigma = 0, the means are equal."""
        return self.shift_sq <= _SAME_MEAN**2 * self.sigma.square()

    @property
    def log_ratio(self) -> Tensor:
        """``log q(x_hat) / p(x_hat)``; NaN where an input is not finite."""
        ratio = -(self.noise_dot_shift + 0.5 * self.shift_sq) / self.sigma.square()
        certain = torch.where(self.shift_sq == 0, 0.0, -math.inf)
        ratio = torch.where(self.sigma == 0, certain, ratio)
        return torch.where(self.finite, ratio, math.nan)


class Outcome(NamedTuple):
    """What becomes of each sample, with ``j = accepted [B]``:
    ``state = m_j + sigma_j noise + shift_factor (m_hat_j - m_j)``.

    Where ``keeps_noise [B]``, the noise is the draft's own, instead of the fresh one.
    ``log_ratio [B, W - 1]`` is NaN where the draft was not examined.
    """

    accepted: Tensor
    keeps_noise: Tensor
    shift_factor: Tensor
    log_ratio: Tensor


def decide_reflection(t: Transitions, uniforms: Tensor) -> Outcome:
    """Reflection maximal coupling, up to the first rejection; ``uniforms [B, W - 1]`` float64."""
    return _one_by_one(t, uniforms, t.log_ratio)


def _one_by_one(t: Transitions, uniforms: Tensor, tested: Tensor) -> Outcome:
    """Reflection where ``tested [B, W - 1]`` stands for the log ratio."""
    accepts = t.real & t.finite & (t.same | (torch.log1p(-uniforms) <= tested))
    accepted = accepts.cumprod(1).sum(1)
    rejected = accepted < t.real.sum(1)
    examined = t.real & (torch.arange(t.real.shape[1], device=tested.device) <= accepted[:, None])
    mirror = _at(-2.0 * t.noise_dot_shift / t.shift_sq, accepted)
    return Outcome(
        accepted,
        rejected,
        torch.where(rejected, mirror, 0.0),
        torch.where(examined, t.log_ratio, math.nan),
    )


def _temper(ratio: Tensor, slack: Tensor) -> Tensor:
    return ratio / (1.0 + slack)


def _allow(ratio: Tensor, slack: Tensor) -> Tensor:
    return (ratio + slack).clamp(max=0.0)


#: How a negative log ratio is relaxed, by name; slack = strength * uncertainty, > 0.
RULES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {"temper": _temper, "allow": _allow}


class Account(NamedTuple):
    """What a relaxed decision does to the law, [B], float64.

    ``spent`` sums up ``a' - a`` over the drafts examined in a sample's run so far;
    ``log_likelihood`` is the log of the relaxed law's density over the exact one's, of this
    window's states.
    """

    spent: Tensor
    log_likelihood: Tensor


def decide_relaxed(
    t: Transitions,
    uniforms: Tensor,
    uncertainty: Tensor | None,
    spent: Tensor,
    *,
    rule: str,
    strength: float,
    budget: float,
) -> tuple[Outcome, Account]:
    """Reflection that tests a relaxed ratio as long as a sample can pay for it.

    ``uncertainty [B, W - 1]`` (None for ``|Delta|``) and ``spent [B]`` are float64.
    """
    ratio = t.log_ratio
    if uncertainty is None:
        delta = t.shift_sq.sqrt() / t.sigma
        uncertainty = torch.where(t.finite & (t.sigma > 0), delta, 0.0)
    # Of the draft or its mirror image, whichever the target likes less.
    low, slack = -ratio.abs(), strength * uncertainty
    relaxed = torch.where((low < 0) & low.isfinite() & (slack > 0), RULES[rule](low, slack), low)
    gain = -relaxed.exp() * torch.expm1(low - relaxed)  # a' - a
    gain = torch.where((relaxed > low) & ~t.same & t.real, gain, 0.0)
    costs = torch.where(ratio < 0, gain, 0.0)
    sums, pays = [spent], torch.zeros_like(t.real)
    for j in range(ratio.shape[1]):  # as if all were examined
        pays[:, j] = (gain[:, j] > 0) & (sums[j] + gain[:, j] <= budget)
        sums.append(torch.where(pays[:, j], sums[j] + costs[:, j], sums[j]))
    outcome = _one_by_one(t, uniforms, torch.where(pays & (ratio < 0), relaxed, ratio))
    step = torch.arange(ratio.shape[1], device=ratio.device)
    raised = (step < outcome.accepted[:, None]) & (ratio < 0)
    change = torch.where(raised, relaxed - ratio, torch.log1p(-gain))
    change = torch.where(pays & (step <= outcome.accepted[:, None]), change, 0.0)
    examined = torch.minimum(outcome.accepted + 1, t.real.sum(1))
    return outcome, Account(torch.stack(sums, 1).gather(1, examined[:, None])[:, 0], change.sum(1))


def decide_block(t: Transitions, uniforms: Tensor) -> Outcome:
    """Block verification, all drafts together; ``uniforms [B, W - 1]`` float64."""
    batch, drafts = t.real.shape
    ratio = t.log_ratio
    delta = t.shift_sq.sqrt() / t.sigma.abs()  # -0.0 is 0, too
    disjoint = ~t.finite | (~t.same & ~(delta <= _DISJOINT))
    overlaps = t.finite & ~t.same & ~disjoint
    delta = torch.where(overlaps, delta, 1.0)  # elsewhere not looked at
    log_p = ratio.new_zeros(batch)
    shares = [log_p]
    accepted = torch.zeros_like(log_p, dtype=torch.int64)
    for j in range(drafts):
        if j > 0:
            mass = residual_tail(log_p, delta[:, j], residual_start(log_p, delta[:, j]))
            mass = torch.where(overlaps[:, j], mass, torch.where(t.same[:, j], 0.0, log_p.exp()))
            stop = torch.where(log_p == 0, 1.0, mass / (mass - torch.expm1(log_p)))
            accepted = torch.where(t.real[:, j] & (uniforms[:, j - 1] < stop), j, accepted)
        factor = torch.where(t.same[:, j], 0.0, ratio[:, j])
        factor = torch.where(disjoint[:, j], -math.inf, factor)
        log_p = torch.where(t.real[:, j], (log_p + factor).clamp(max=0.0), log_p)
        shares.append(log_p)
    last = t.real.sum(1)
    all_stand = (last == 0) | (_at(uniforms, last - 1) < log_p.exp())
    accepted = torch.where(all_stand, last, accepted)

    share = torch.stack(shares, 1).gather(1, accepted[:, None])[:, 0]
    delta = _at(delta, accepted)
    along = -_at(t.fresh_noise_dot_shift / t.shift_sq.sqrt(), accepted)
    s = residual_quantile(share, delta, normal_tail(-along))
    repaired = ~all_stand & _at(overlaps, accepted)
    return Outcome(
        accepted,
        torch.zeros_like(all_stand),
        torch.where(repaired, (delta + along - s) / delta, 0.0),
        torch.where(t.real, ratio, math.nan),
    )


def normal_tail(x: Tensor) -> Tensor:
    """Upper tail of N(0, 1); ``torch.special.ndtr`` is 0 long before it is."""
    return 0.5 * torch.erfc(x / math.sqrt(2))


def residual_start(log_share: Tensor, delta: Tensor) -> Tensor:
    """``c``, from where on ``exp(log_share) phi(s - delta) > phi(s)``."""
    return 0.5 * delta - log_share / delta


def residual_tail(log_share: Tensor, delta: Tensor, s: Tensor) -> Tensor:
    """Mass of ``(exp(log_share) phi(s - delta) - phi(s))_+`` beyond ``s >= c``; all float64."""
    tail = log_share.exp() * normal_tail(s - delta) - normal_tail(s)
    # phi(s) times the difference of Mills ratios, where the tails agree in most of their digits.
    excess = torch.expm1(delta * (s - residual_start(log_share, delta)))
    middle = s - 0.5 * delta
    descent = torch.where(middle > 26.0, _far_descent(middle), 1.0 - middle * _mills(middle))
    close = torch.exp(-0.5 * s * s) / math.sqrt(2 * math.pi)
    close = close * (excess * _mills(s - delta) + delta * descent)
    tail = torch.where(delta < _CLOSE_MEANS, close, tail.clamp(min=0.0))
    return torch.where(s < 38.0 + delta, tail, 0.0)


def residual_quantile(log_share: Tensor, delta: Tensor, u: Tensor) -> Tensor:
    """The ``s`` beyond which the share ``u`` of that mass lies, all ``[B]`` float64."""
    low = residual_start(log_share, delta)
    goal = u * residual_tail(log_share, delta, low)
    high = torch.maximum(low, delta) + 12.0
    grid = torch.linspace(0, 1, 17, dtype=low.dtype, device=low.device)
    for _ in range(9):  # each is four bisections
        s = low[:, None] + (high - low)[:, None] * grid
        tail = residual_tail(log_share[:, None], delta[:, None], s)
        cell = ((tail > goal[:, None]).sum(1) - 1).clamp(0, 15)[:, None]
        low, high = s.gather(1, cell)[:, 0], s.gather(1, cell + 1)[:, 0]
    return 0.5 * (low + high)


def _mills(x: Tensor) -> Tensor:
    """Upper tail over density of N(0, 1)."""
    return math.sqrt(math.pi / 2) * torch.special.erfcx(x / math.sqrt(2))


def _far_descent(x: Tensor) -> Tensor:
    """``1 - x _mills(x)`` far out, by its asymptotic series."""
    r = 1 / (x * x)
    return r * (1 - r * (3 - r * (15 - r * 105)))


def _at(column: Tensor, j: Tensor) -> Tensor:
    """``column [B, W - 1]`` at transition ``j [B]``; something else where there is none."""
    if column.shape[1] == 0:
        return column.new_zeros(len(column))
    return column.gather(1, j.clamp(0, column.shape[1] - 1)[:, None])[:, 0]


#: By name; a new one needs its function in csrc/include/free/ as well.
DECISIONS: dict[str, Callable[[Transitions, Tensor], Outcome]] = {
    "reflection": decide_reflection,
    "block": decide_block,
}


def named(table: Mapping[str, T], argument: str, name: str) -> T:
    """An entry by its name; a ValueError that names the ``argument`` if there is none."""
    if name not in table:
        expected = ", ".join(map(repr, table))
        raise ValueError(f"{argument}: expected one of {expected}, got {name!r}")
    return table[name]


#: Those whose decision depends on drafts behind the ones that stand.
LOOKING_AHEAD = frozenset({"block"})
