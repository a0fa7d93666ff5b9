"""Verifying a window of drafts."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils.dlpack import to_dlpack

from free import reference

# After torch, so that one OpenMP runtime serves both.
from free.ops import _C
from free.ops.operator import check_tensor, register, stream_of
from free.reference.decide import DECISIONS, RULES

__all__ = [
    "VERIFIERS",
    "WIDEST_ON_CUDA",
    "Verified",
    "VerifiedRelaxed",
    "check_verifier",
    "check_window",
    "verify_window",
    "verify_window_relaxed",
    "workspace",
]

#: Names of the verifiers.
VERIFIERS = tuple(DECISIONS)

#: Rows of a window that the CUDA kernels can verify, at most (``kMaxWidth`` of csrc/cuda).
WIDEST_ON_CUDA = 256

_WINDOW = (
    "Tensor states, Tensor draft_means, Tensor target_means, Tensor sigma, Tensor length, "
    "Tensor uniforms, Tensor noise, str verifier"
)


class Verified(NamedTuple):
    """What became of a window.

    Attributes
    ----------
    state : Tensor, shape [B, ...], float32
        The state after the last transition made.
    advance : Tensor, shape [B], int32
        Transitions made, ``1 .. length``: a repaired draft counts.
    accepted : Tensor, shape [B], int32
        Drafts that stand, ``0 .. length - 1``.
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
    draft_means : Tensor, shape [B, W - 1, ...], float32
        ``m_hat`` of transitions ``0 .. W-2``.
    target_means : Tensor, shape [B, W, ...], float32
        ``m`` of transitions ``0 .. W-1``.
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

    Returns
    -------
    Verified

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
    check_window(states, draft_means, target_means, sigma, length, uniforms, noise)
    check_verifier(verifier)
    return Verified(
        *torch.ops.free.verify_window(
            states, draft_means, target_means, sigma, length, uniforms, noise, verifier
        )
    )


def check_verifier(verifier: str) -> None:
    """Raise a ``ValueError`` unless ``verifier`` is one of :data:`VERIFIERS`."""
    if verifier not in VERIFIERS:
        expected = ", ".join(map(repr, VERIFIERS))
        raise ValueError(f"verifier: expected one of {expected}, got {verifier!r}")


def check_window(
    states: Tensor,
    draft_means: Tensor,
    target_means: Tensor,
    sigma: Tensor,
    length: Tensor,
    uniforms: Tensor,
    noise: Tensor,
) -> None:
    """Raise unless dtypes, shapes and devices are those of :func:`verify_window`."""
    check_tensor("states", states, torch.float32)
    shape = states.shape
    if len(shape) < 3 or states.numel() == 0:
        raise ValueError(f"states: expected a non-empty shape [B, W, ...], got {list(shape)}")
    batch, width, *sample = shape
    device = states.device
    check_tensor("draft_means", draft_means, torch.float32, (batch, width - 1, *sample), device)
    check_tensor("target_means", target_means, torch.float32, shape, device)
    check_tensor("sigma", sigma, torch.float32, (batch, width), device)
    check_tensor("length", length, torch.int32, (batch,), device)
    check_tensor("uniforms", uniforms, torch.float32, (batch, width - 1), device)
    check_tensor("noise", noise, torch.float32, (batch, *sample), device)


def _verify_cpu(*arguments: Any) -> Verified:
    *inputs, verifier = arguments
    verified = _verify_fake(*arguments)
    _C.verify_window(verifier, *map(to_dlpack, (*inputs, *verified)))
    return verified


def _verify_cuda(*arguments: Any) -> Verified:
    *inputs, verifier = arguments
    verified = _verify_fake(*arguments)
    tensors = (*inputs, *verified, workspace(inputs[0]))
    _C.cuda_verify_window(verifier, *map(to_dlpack, tensors), stream=stream_of(inputs[0]))
    return verified


def workspace(states: Tensor) -> Tensor:
    """What the CUDA kernels need beside their arguments to verify a window of ``states``."""
    batch, width = states.shape[:2]
    count = _C.cuda_verify_workspace(batch, width, states[0, 0].numel())
    return states.new_empty(count, dtype=torch.float64)


def _verify_fake(
    states: Tensor,
    draft_means: Tensor,
    target_means: Tensor,
    sigma: Tensor,
    length: Tensor,
    uniforms: Tensor,
    noise: Tensor,
    verifier: str,
) -> Verified:
    return Verified(
        torch.empty_like(noise),
        torch.empty_like(length),
        torch.empty_like(length),
        torch.empty_like(uniforms),
    )


register(
    f"verify_window({_WINDOW}) -> (Tensor, Tensor, Tensor, Tensor)",
    _verify_cpu,
    _verify_cuda,
    reference.verify_window,
    _verify_fake,
)

_RELAXED = (
    "Tensor states, Tensor draft_means, Tensor target_means, Tensor sigma, Tensor length, "
    "Tensor uniforms, Tensor noise, Tensor? uncertainty, Tensor spent, str rule, float strength, "
    "float budget"
)


class VerifiedRelaxed(NamedTuple):
    """What became of a window.

    Attributes
    ----------
    state, advance, accepted, log_ratio
        As in :class:`free.ops.Verified`; ``log_ratio`` is the exact one.
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

    and so accepted with probability ``a' = exp(r')`` instead of ``a = exp(r)``. All else is as it
    was, the repair of a rejected draft included. Where ``a' - a`` would take what the sample has
    ``spent`` past ``budget``, the draft is tested by ``r``.

    Parameters
    ----------
    states, draft_means, target_means, sigma, length, uniforms, noise
        As for :func:`free.ops.verify_window`.
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

    Returns
    -------
    VerifiedRelaxed

    Raises
    ------
    TypeError
        For an argument that is no tensor, or a tensor of another dtype.
    ValueError
        As for :func:`free.ops.verify_window`; for an unknown rule, or ``strength`` or ``budget``
        out of range; on the CPU also for real entries of ``uncertainty`` and ``spent``.

    Notes
    -----
    With ``budget=0`` or ``strength=0`` states and decisions are those of the exact op, bit for bit.
    What ``bound`` bounds and ``log_likelihood`` tells is derived in docs/relaxation.md.
    """
    check_window(states, draft_means, target_means, sigma, length, uniforms, noise)
    device = states.device
    if uncertainty is not None:
        check_tensor("uncertainty", uncertainty, torch.float32, uniforms.shape, device)
    check_tensor("spent", spent, torch.float64, length.shape, device)
    if rule not in RULES:
        expected = ", ".join(map(repr, RULES))
        raise ValueError(f"rule: expected one of {expected}, got {rule!r}")
    if not (strength >= 0 and math.isfinite(strength)):
        raise ValueError(f"strength: expected a finite value >= 0, got {strength}")
    if not budget >= 0:
        raise ValueError(f"budget: expected a value >= 0, got {budget}")
    return VerifiedRelaxed(
        *torch.ops.free.verify_window_relaxed(
            states,
            draft_means,
            target_means,
            sigma,
            length,
            uniforms,
            noise,
            uncertainty,
            spent,
            rule,
            strength,
            budget,
        )
    )


def _relaxed_cpu(*arguments: Any) -> VerifiedRelaxed:
    *window, uncertainty, spent, rule, strength, budget = arguments
    verified = _relaxed_fake(*arguments)
    given = (*window, uncertainty, spent, *verified)
    capsules = [None if tensor is None else to_dlpack(tensor) for tensor in given]
    _C.verify_window_relaxed(rule, strength, budget, *capsules)
    return verified


def _relaxed_cuda(*arguments: Any) -> VerifiedRelaxed:
    *window, uncertainty, spent, rule, strength, budget = arguments
    verified = _relaxed_fake(*arguments)
    given = (*window, uncertainty, spent, *verified, workspace(window[0]))
    capsules = [None if tensor is None else to_dlpack(tensor) for tensor in given]
    _C.cuda_verify_window_relaxed(rule, strength, budget, *capsules, stream=stream_of(window[0]))
    return verified


def _relaxed_fake(*arguments: Any) -> VerifiedRelaxed:
    *_, length, uniforms, noise, _, spent, _, _, _ = arguments
    return VerifiedRelaxed(
        torch.empty_like(noise),
        torch.empty_like(length),
        torch.empty_like(length),
        torch.empty_like(uniforms),
        torch.empty_like(spent),
        torch.empty_like(spent),
    )


register(
    f"verify_window_relaxed({_RELAXED}) -> (Tensor, Tensor, Tensor, Tensor, Tensor, Tensor)",
    _relaxed_cpu,
    _relaxed_cuda,
    reference.verify_window_relaxed,
    _relaxed_fake,
)
