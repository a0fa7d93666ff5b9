"""Twins of what is done to the rows of a teacher call."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = [
    "note_nonfinite_",
    "target_means",
]


def target_means(
    x: Tensor,
    eps: Tensor,
    a: Tensor,
    b: Tensor,
    cfg_scale: float | None = None,
    cfg_channels: int | None = None,
    signal: Tensor | None = None,
    noise: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """``a x + b eps``, with eps guided and in float32 first, and the image that it tells.

    Parameters and results are those of :func:`free.ops.target_means`.
    """
    eps = eps.to(torch.float32, copy=True)
    if cfg_scale is not None:
        eps, unconditional = (row.contiguous() for row in eps.unflatten(0, (-1, 2)).unbind(1))
        guided = slice(cfg_channels)
        eps[:, guided] = torch.lerp(unconditional[:, guided], eps[:, guided], cfg_scale)
    axes = [-1] + [1] * (x.dim() - 1)
    means = torch.addcmul(a.view(axes) * x, b.view(axes), eps)
    if signal is None or noise is None:
        return eps, means, x.new_empty(0)
    return eps, means, (x - noise.view(axes) * eps) / signal.view(axes)


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

    Parameters and results are those of :func:`free.ops.note_nonfinite_`.
    """
    bad = ~values.isfinite().flatten(1).all(1).view(len(samples), -1)
    step = first + torch.arange(bad.shape[1], device=k.device)
    bad = bad & (step < high[:, None])
    if low is not None:
        bad = bad & (step >= low[:, None])
    never = torch.iinfo(torch.int64).max
    earliest = torch.where(bad, k.view_as(bad), never).amin(1)
    failed.scatter_reduce_(0, samples, earliest, "amin")
