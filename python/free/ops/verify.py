"""Verifying a window of drafts."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils.dlpack import to_dlpack

# After torch, so that one OpenMP runtime serves both.
from free import _C, reference
from free.ops.register import check_tensor, register, stream_of
from free.verifiers import DECISIONS

__all__ = [
    "VERIFIERS",
    "WIDEST_ON_CUDA",
    "Verified",
    "check_verifier",
    "check_window",
    "verify_window",
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


def _cpu(*arguments: Any) -> Verified:
    *inputs, verifier = arguments
    verified = _fake(*arguments)
    _C.verify_window(verifier, *map(to_dlpack, (*inputs, *verified)))
    return verified


def _cuda(*arguments: Any) -> Verified:
    *inputs, verifier = arguments
    verified = _fake(*arguments)
    tensors = (*inputs, *verified, workspace(inputs[0]))
    _C.cuda_verify_window(verifier, *map(to_dlpack, tensors), stream=stream_of(inputs[0]))
    return verified


def workspace(states: Tensor) -> Tensor:
    """What the CUDA kernels need beside their arguments to verify a window of ``states``."""
    batch, width = states.shape[:2]
    count = _C.cuda_verify_workspace(batch, width, states[0, 0].numel())
    return states.new_empty(count, dtype=torch.float64)


def _fake(
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
    _cpu,
    _cuda,
    reference.verify_window,
    _fake,
)
