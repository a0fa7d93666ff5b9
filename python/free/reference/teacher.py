"""What a teacher said, guided, and the means that follow from it."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class TargetMeans(NamedTuple):
    """Transitions as the teacher has them: [R, C, ...], float32.

    Attributes
    ----------
    eps, means : Tensor
        Guided, and the transitions' means.
    guess : Tensor
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
    *,
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
        A float32, and finite; None: not guided.
    cfg_channels : int or None
        How many leading channels are guided, ``0 .. C``; None for all.
    signal, noise : Tensor or None, shape [R], float32
        Of the states, to have the image ``(x - noise eps) / signal``.

    Raises
    ------
    TypeError, ValueError
    """
    eps = eps.to(torch.float32, copy=True)
    if cfg_scale is not None:
        eps, unconditional = (row.contiguous() for row in eps.unflatten(0, (-1, 2)).unbind(1))
        guided = slice(cfg_channels)
        eps[:, guided] = torch.lerp(unconditional[:, guided], eps[:, guided], cfg_scale)
    axes = [-1] + [1] * (x.dim() - 1)
    means = torch.addcmul(a.view(axes) * x, b.view(axes), eps)
    if signal is None or noise is None:
        return TargetMeans(eps, means, eps)
    return TargetMeans(eps, means, (x - noise.view(axes) * eps) / signal.view(axes))


def note_nonfinite_(
    failed: Tensor,
    samples: Tensor,
    values: Tensor,
    k: Tensor,
    *,
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
    low, high : Tensor, shape [B], int64
        A ``low`` of None is 0.

    Raises
    ------
    TypeError, ValueError
        ValueError also for a ``failed`` that shares memory with another argument. Values are not
        looked at.
    RuntimeError
        On the CPU, where torch finds a sample that is not there. On CUDA that is passed over.
    """
    bad = ~values.isfinite().flatten(1).all(1).view(len(samples), -1)
    step = first + torch.arange(bad.shape[1], device=k.device)
    bad = bad & (step < high[:, None])
    if low is not None:
        bad = bad & (step >= low[:, None])
    never = torch.iinfo(torch.int64).max
    earliest = torch.where(bad, k.view_as(bad), never).amin(1)
    failed.scatter_reduce_(0, samples, earliest, "amin")
