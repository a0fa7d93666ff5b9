"""Verifying a window of drafts by a relaxed rule, with a bound on what that does to the law."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils.dlpack import to_dlpack

# After torch, so that one OpenMP runtime serves both.
from free import _C, reference
from free.ops.register import check_tensor, register, stream_of
from free.ops.verify import check_window, workspace
from free.verifiers import RULES

__all__ = ["VerifiedRelaxed", "verify_window_relaxed"]

_WINDOW = (
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


def _cpu(*arguments: Any) -> VerifiedRelaxed:
    *window, uncertainty, spent, rule, strength, budget = arguments
    verified = _fake(*arguments)
    given = (*window, uncertainty, spent, *verified)
    capsules = [None if tensor is None else to_dlpack(tensor) for tensor in given]
    _C.verify_window_relaxed(rule, strength, budget, *capsules)
    return verified


def _cuda(*arguments: Any) -> VerifiedRelaxed:
    *window, uncertainty, spent, rule, strength, budget = arguments
    verified = _fake(*arguments)
    given = (*window, uncertainty, spent, *verified, workspace(window[0]))
    capsules = [None if tensor is None else to_dlpack(tensor) for tensor in given]
    _C.cuda_verify_window_relaxed(rule, strength, budget, *capsules, stream=stream_of(window[0]))
    return verified


def _fake(*arguments: Any) -> VerifiedRelaxed:
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
    f"verify_window_relaxed({_WINDOW}) -> (Tensor, Tensor, Tensor, Tensor, Tensor, Tensor)",
    _cpu,
    _cuda,
    reference.verify_window_relaxed,
    _fake,
)
