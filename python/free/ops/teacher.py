"""What a teacher said, guided, and the means that follow from it."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils.dlpack import to_dlpack

from free import reference

# After torch, so that one OpenMP runtime serves both.
from free.ops import _C
from free.ops.operator import check_integer, check_tensor, register, stream_of

__all__ = [
    "TargetMeans",
    "note_nonfinite_",
    "target_means",
]

_MEANS = (
    "Tensor x, Tensor eps, Tensor a, Tensor b, float? cfg_scale, int? cfg_channels, "
    "Tensor? signal, Tensor? noise"
)

_TYPES = (torch.float32, torch.float16, torch.bfloat16)


class TargetMeans(NamedTuple):
    """Transitions as the teacher has them.

    Attributes
    ----------
    eps : Tensor, shape [R, C, ...], float32
        Guided.
    means : Tensor, shape [R, C, ...], float32
    guess : Tensor, shape [R, C, ...], float32
        The image that eps tells, where it was asked for; else eps.
    """

    eps: Tensor
    means: Tensor
    guess: Tensor


def target_means(
    x: Tensor,
    eps: Tensor,
    a: Tensor,
    b: Tensor,
    cfg_scale: float | None = None,
    cfg_channels: int | None = None,
    signal: Tensor | None = None,
    noise: Tensor | None = None,
) -> TargetMeans:
    """``mean = a x + b eps``, with eps guided and in float32 first, and the image it tells.

    Guidance is that of :class:`free.models.guidance.Guidance`, taken in float32 whatever the
    type of ``eps``.

    Parameters
    ----------
    x : Tensor, shape [R, C, ...], float32
        States.
    eps : Tensor, shape [R, C, ...] or, under guidance, [2R, C, ...], float32, float16 or bfloat16
        Under guidance, row ``2r`` is that of state ``r`` with its label and ``2r + 1`` without.
    a, b : Tensor, shape [R], float32
        The transitions' coefficients.
    cfg_scale : float or None
        None: not guided.
    cfg_channels : int or None
        How many leading channels are guided, ``0 .. C``; None for all.
    signal, noise : Tensor or None, shape [R], float32
        Of the states, to have the image ``(x - noise eps) / signal``.

    Returns
    -------
    TargetMeans

    Raises
    ------
    TypeError, ValueError
        Naming the argument, what was expected and what came.
    """
    check_tensor("x", x, torch.float32)
    if x.dim() < 2:
        raise ValueError(f"x: expected shape [R, C, ...], got {list(x.shape)}")
    rows, channels, *_ = x.shape
    dtype = getattr(eps, "dtype", None)
    check_tensor(
        "eps",
        eps,
        dtype if dtype in _TYPES else torch.float32,
        (rows * (1 if cfg_scale is None else 2), *x.shape[1:]),
        x.device,
    )
    check_tensor("a", a, torch.float32, (rows,), x.device)
    check_tensor("b", b, torch.float32, (rows,), x.device)
    if cfg_channels is not None:
        check_integer("cfg_channels", cfg_channels, 0, channels)
    if (signal is None) != (noise is None):
        raise ValueError("signal and noise: expected both or neither, got one of them")
    if signal is not None and noise is not None:
        check_tensor("signal", signal, torch.float32, (rows,), x.device)
        check_tensor("noise", noise, torch.float32, (rows,), x.device)
    given = (x, eps, a, b, cfg_scale, cfg_channels, signal, noise)
    combined, means, guess = torch.ops.free.target_means(*given)
    return TargetMeans(combined, means, combined if signal is None else guess)


def _means_cuda(*arguments: Any) -> TargetMeans:
    x, eps, a, b, cfg_scale, cfg_channels, signal, noise = arguments
    means = _means_fake(*arguments)
    guess = None if signal is None else means.guess
    given = (x, eps, a, b, signal, noise, means.eps, means.means, guess)
    capsules = [None if tensor is None else to_dlpack(tensor) for tensor in given]
    _C.cuda_target_means(cfg_scale, cfg_channels, *capsules, stream=stream_of(x))
    return means


def _means_fake(x: Tensor, *rest: Any) -> TargetMeans:
    signal = rest[-2]
    guess = x.new_empty(0) if signal is None else torch.empty_like(x)
    return TargetMeans(torch.empty_like(x), torch.empty_like(x), guess)


register(
    f"target_means({_MEANS}) -> (Tensor, Tensor, Tensor)",
    None,
    _means_cuda,
    reference.target_means,
    _means_fake,
)

_NOTE = (
    "Tensor(a!) failed, Tensor values, Tensor k, Tensor samples, SymInt first, Tensor? low, "
    "Tensor high"
)


def note_nonfinite_(
    failed: Tensor,
    values: Tensor,
    k: Tensor,
    samples: Tensor,
    first: int,
    low: Tensor | None,
    high: Tensor,
) -> None:
    """Remember the first transition of each sample whose row is not finite.

    Row ``b n + i`` is position ``first + i`` of sample ``samples[b]``, and is asked about where
    that is at least ``low[b]`` and less than ``high[b]``.

    Parameters
    ----------
    failed : Tensor, shape [S], int64
        By sample; the smallest ``k`` of a row that is asked about and has NaN or inf, or what it
        was if that is smaller.
    values : Tensor, shape [B n, ...], float32, float16 or bfloat16
    k : Tensor, shape [B n], int64
    samples : Tensor, shape [B], int64, in ``0 .. S - 1``
    first : int
    low : Tensor or None, shape [B], int64
        None for 0.
    high : Tensor, shape [B], int64

    Raises
    ------
    TypeError, ValueError
        Naming the argument, what was expected and what came. Values are not looked at.
    RuntimeError
        On the CPU, where torch finds a sample that is not there. On CUDA that is passed over.
    """
    check_integer("first", first, 0)
    check_tensor("failed", failed, torch.int64)
    if failed.dim() != 1:
        raise ValueError(f"failed: expected shape [S], got {list(failed.shape)}")
    device = failed.device
    dtype = getattr(values, "dtype", None)
    check_tensor("values", values, dtype if dtype in _TYPES else torch.float32, device=device)
    check_tensor("samples", samples, torch.int64, device=device)
    if samples.dim() != 1 or len(samples) == 0:
        raise ValueError(f"samples: expected shape [B], got {list(samples.shape)}")
    if values.dim() < 2 or values.numel() == 0 or len(values) % len(samples):
        raise ValueError(
            f"values: expected a non-empty shape [a multiple of {len(samples)}, ...], "
            f"got {list(values.shape)}"
        )
    check_tensor("k", k, torch.int64, (len(values),), device)
    if low is not None:
        check_tensor("low", low, torch.int64, samples.shape, device)
    check_tensor("high", high, torch.int64, samples.shape, device)
    torch.ops.free.note_nonfinite_(failed, values, k, samples, first, low, high)


def _finite_cuda(*arguments: Any) -> None:
    failed, values, k, samples, first, low, high = arguments
    given = (failed, values, k, samples, low, high)
    capsules = [None if tensor is None else to_dlpack(tensor) for tensor in given]
    _C.cuda_note_nonfinite(first, *capsules, stream=stream_of(failed))


def _finite_fake(*arguments: Any) -> None:
    """Nothing is returned."""


register(
    f"note_nonfinite_({_NOTE}) -> ()", None, _finite_cuda, reference.note_nonfinite_, _finite_fake
)
