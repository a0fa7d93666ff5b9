"""Verifying a window of drafts."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from free.reference.decide import DECISIONS, RULES, Outcome, Transitions, decide_relaxed, named


class Verified(NamedTuple):
    """What became of a window.

    Attributes
    ----------
    state : Tensor, shape [B, ...], float32
        The state after the last transition made.
    advance, accepted : Tensor, shape [B], int32
        Transitions made, ``1 .. length``: a repaired draft counts; and drafts that stand,
        ``0 .. length - 1``.
    log_ratio : Tensor, shape [B, W - 1], float32
        ``log q(x_hat) / p(x_hat)`` of every examined draft: by reflection those up to
        ``accepted``, by block verification all. NaN for the others, and for an examined one whose
        state or means are not finite; such a draft is rejected.
    """

    state: Tensor
    advance: Tensor
    accepted: Tensor
    log_ratio: Tensor


def verify_window(
    states: Tensor,
    draft_means: Tensor,
    target_means: Tensor,
    sigma: Tensor,
    length: Tensor,
    uniforms: Tensor,
    noise: Tensor,
    verifier: str = "reflection",
) -> Verified:
    """Keep the drafts that the target's law allows and repair the next transition.

    With ``z = (x_hat - m_hat) / sigma``, ``Delta = (m_hat - m) / sigma``, ``e = Delta / |Delta|``,
    *reflection* accepts a draft if ``log1p(-u) <= -<z, Delta> - |Delta|^2 / 2``, or if
    ``|Delta| <= 1e-10``, and otherwise makes the state ``m + sigma (z - 2 <z, e> e)``: either way
    it is distributed as N(m, sigma^2 I). The probability of acceptance is ``2 Phi(-|Delta| / 2)``,
    which no rule for one transition exceeds.

    *block* judges all drafts together (docs/verification.md): with ``p_j`` the likelihood ratio of
    the first ``j`` drafts, capped at 1 on the way, the largest number ``j`` of them stands whose
    ``uniforms[j - 1]`` is below ``R_j / (R_j + 1 - p_j)``, or ``p_j`` where ``j = length - 1``;
    ``R_j`` is the mass of ``(p_j q - p)_+`` at transition ``j``, from which the state is then
    drawn, with ``noise``. No rule for the whole window keeps more on average. What it decides
    depends on later drafts: their noise must not be used again.

    With both, if all drafts stand, one more transition is sampled from the target.

    Entries at and beyond ``length`` are ignored, whatever they hold. Where ``sigma`` is 0 a draft
    stands only if its mean equals the target's; otherwise the state is the target's mean.

    Parameters
    ----------
    states : Tensor, shape [B, W, ...], float32
        ``x_k`` and the drafted ``x_{k+1} .. x_{k+W-1}``: the rows that the teacher saw. At least
        one axis follows ``W``.
    draft_means, target_means : Tensor, shape [B, W - 1, ...] and [B, W, ...], float32
        ``m_hat`` of transitions ``0 .. W-2``, and ``m`` of ``0 .. W-1``.
    sigma : Tensor, shape [B, W], float32
        Finite and >= 0; 0 only where the transition is deterministic.
    length : Tensor, shape [B], int32
        Rows of each sample that are real, ``1 .. W``.
    uniforms : Tensor, shape [B, W - 1], float32
        In [0, 1).
    noise : Tensor, shape [B, ...], float32
        Fresh N(0, I) for a transition sampled from the target, or from what is left of it.
    verifier : {"reflection", "block"}
        The decision rule.

    Raises
    ------
    TypeError
        For an argument that is no tensor, or a tensor of another dtype.
    ValueError
        For shapes that do not match, empty or non-contiguous tensors, different devices, an unknown
        verifier; on the CPU also for real entries of ``length``, ``sigma`` and ``uniforms`` out of
        range (on other devices looking would stall the queue); on CUDA for more than 256 rows a
        window.
    RuntimeError
        For CUDA tensors where this build has no CUDA, or where CUDA says so.

    Notes
    -----
    The result for a sample does not depend on its batch or on the number of threads. On CUDA a
    ``length`` out of range counts as the nearest that is not; ``sigma`` and ``uniforms`` out of
    range spoil the sample that they belong to.

    References
    ----------
    FREE (arXiv 2511.20390), supplement B, equations 12-14; De Bortoli et al., arXiv 2501.05370;
    of block verification, Sun et al., arXiv 2403.10444.
    """
    decide = named(DECISIONS, "verifier", verifier)
    transitions = _reduce(states, draft_means, target_means, sigma, length, noise)
    outcome = decide(transitions, uniforms.double())
    return _write(states, draft_means, target_means, sigma, noise, outcome)


class VerifiedRelaxed(NamedTuple):
    """What became of a window, and of the relaxation: its ``log_ratio`` is the exact one.

    Attributes
    ----------
    state, advance, accepted, log_ratio
        See :class:`free.ops.Verified`.
    bound : Tensor, shape [B], float64
        ``spent`` and the sum of ``a' - a`` over the examined drafts.
    log_likelihood : Tensor, shape [B], float64
        Log of the relaxed law's density over the exact one's, of the states of this window.
    """

    state: Tensor
    advance: Tensor
    accepted: Tensor
    log_ratio: Tensor
    bound: Tensor
    log_likelihood: Tensor


def verify_window_relaxed(
    states: Tensor,
    draft_means: Tensor,
    target_means: Tensor,
    sigma: Tensor,
    length: Tensor,
    uniforms: Tensor,
    *,
    noise: Tensor,
    uncertainty: Tensor | None,
    spent: Tensor,
    rule: str = "allow",
    strength: float = 0.3,
    budget: float = math.inf,
) -> VerifiedRelaxed:
    """:func:`free.ops.verify_window` by reflection, lenient where the teacher is unsure.

    A draft with log ratio ``r < 0`` and uncertainty ``u > 0`` is tested by ``r'`` instead of ``r``,

        temper    r' = r / (1 + strength * u)
        allow     r' = min(0, r + strength * u)

    and so accepted with probability ``a' = exp(r')`` instead of ``a = exp(r)``. All else, arguments
    and errors included, is as it was, and so is the repair of a rejected draft. Where ``a' - a``
    would take what the sample has ``spent`` past ``budget``, the draft is tested by ``r``.

    Parameters
    ----------
    states, draft_means, target_means, sigma, length, uniforms, noise
        See :func:`free.ops.verify_window`.
    uncertainty : Tensor or None, shape [B, W - 1], float32
        ``u`` of each draft, finite; what is negative counts as 0. It must not depend on the draft's
        own uniform. None for the discrepancy, ``|m_hat - m| / sigma``.
    spent : Tensor, shape [B], float64
        Sums of ``a' - a`` of each sample's run so far, finite and >= 0.
    rule : {"temper", "allow"}
    strength : float
        Finite and >= 0; 0 relaxes nothing.
    budget : float
        >= 0; infinite for none.

    Raises
    ------
    TypeError, ValueError, RuntimeError
        ValueError also for an unknown rule, or ``strength`` or ``budget`` out of range; on the CPU
        also for real entries of ``uncertainty`` and ``spent``.

    Notes
    -----
    With ``budget=0`` or ``strength=0`` states and decisions are those of the exact op, bit for bit.
    What ``bound`` bounds and ``log_likelihood`` tells is derived in docs/relaxation.md.
    """
    named(RULES, "rule", rule)
    outcome, account = decide_relaxed(
        _reduce(states, draft_means, target_means, sigma, length, noise),
        uniforms.double(),
        None if uncertainty is None else uncertainty.double(),
        spent,
        rule=rule,
        strength=strength,
        budget=budget,
    )
    verified = _write(states, draft_means, target_means, sigma, noise, outcome)
    return VerifiedRelaxed(*verified, *account)


def _reduce(
    states: Tensor,
    draft_means: Tensor,
    target_means: Tensor,
    sigma: Tensor,
    length: Tensor,
    noise: Tensor,
) -> Transitions:
    """Unscaled and in float64, where the products of float32 differences are exact and neither
    overflow nor underflow.
    """
    drafts = states.shape[1] - 1
    drawn, shift = _differences(states, draft_means, target_means)
    wide, fresh = shift.double(), noise.reshape(len(noise), -1).double()
    return Transitions(
        torch.linalg.vecdot(drawn.double(), wide),
        torch.linalg.vecdot(wide, wide),
        torch.linalg.vecdot(fresh[:, None], wide),
        sigma[:, :drafts].double(),
        torch.arange(drafts, device=states.device) < length[:, None] - 1,
    )


def _write(
    states: Tensor,
    draft_means: Tensor,
    target_means: Tensor,
    sigma: Tensor,
    noise: Tensor,
    outcome: Outcome,
) -> Verified:
    batch, width = states.shape[:2]
    sample, accepted = torch.arange(batch, device=states.device), outcome.accepted
    mean = target_means.flatten(2)[sample, accepted]
    scale = sigma[sample, accepted, None]
    change = scale * noise.reshape(batch, -1)
    if width > 1:
        drawn, shift = _differences(states, draft_means, target_means)
        j = accepted.clamp(max=width - 2)
        change = torch.where(outcome.keeps_noise[:, None], drawn[sample, j], change)
        factor = outcome.shift_factor.float()[:, None]
        # Where the factor is 0 nothing is read: there may be no draft, or one that is not finite.
        change = change + torch.where(factor == 0, 0.0, factor * shift[sample, j])
    state = torch.where(scale > 0, mean + change, mean)
    accepted = accepted.int()
    return Verified(state.view(noise.shape), accepted + 1, accepted, outcome.log_ratio.float())


def _differences(
    states: Tensor, draft_means: Tensor, target_means: Tensor
) -> tuple[Tensor, Tensor]:
    """``x_hat - m_hat`` and ``m_hat - m`` of the drafts, [B, W - 1, D]."""
    m_hat = draft_means.flatten(2)
    return states.flatten(2)[:, 1:] - m_hat, m_hat - target_means.flatten(2)[:, :-1]
