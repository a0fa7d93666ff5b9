"""What a caller asks of a sampler, checked before any work is done."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from free import random
from free.random import Purpose

__all__ = ["Request", "check_request"]


class Request(NamedTuple):
    """A checked request, on the teacher's device.

    Attributes
    ----------
    labels : Tensor, shape [B], int64
    seeds : Tensor, shape [B], int64
    state : Tensor, shape [B, ...], float32
        The initial noise.
    """

    labels: Tensor
    seeds: Tensor
    state: Tensor


def check_request(
    teacher: Any,
    labels: Tensor | Sequence[int],
    seed: int | Tensor | Sequence[int],
    shape: Sequence[int] | None,
) -> Request:
    """Check ``labels``, ``seed`` and ``shape``, and draw the initial states.

    A teacher may have the attributes ``num_classes`` (labels are checked against it) and
    ``sample_shape`` (the default of ``shape``).

    Raises
    ------
    ValueError
        Naming the argument, what was expected and what came.
    """
    y = _integers(labels, "labels")
    classes = getattr(teacher, "num_classes", None)
    if classes is not None and not (int(y.min()) >= 0 and int(y.max()) <= classes):
        raise ValueError(
            f"labels must be in 0..{classes} ({classes} is the null class), "
            f"got {int(y.min())}..{int(y.max())}"
        )
    if isinstance(seed, int):
        # Seeds are 64-bit keys: wrap as two's complement, so that 2**64 - 1 is a seed too.
        first = (seed + 2**63) % 2**64 - 2**63
        seeds = torch.tensor(first) + torch.arange(len(y))
    else:
        seeds = _integers(seed, "seed")
    if seeds.shape != y.shape:
        raise ValueError(f"seed must be one integer or one a label ({len(y)}), got {len(seeds)}")
    size = getattr(teacher, "sample_shape", None) if shape is None else tuple(shape)
    if not size or not all(isinstance(extent, int) and extent >= 1 for extent in size):
        raise ValueError(
            f"shape must be the positive sizes of one sample, got {size}"
            + (" and a teacher without sample_shape" if shape is None else "")
        )
    if (
        isinstance(teacher, torch.nn.Module)
        and (weight := next(teacher.parameters(), None)) is not None
    ):
        device = weight.device
    else:
        device = y.device
    y, seeds = y.to(device), seeds.to(device)
    start = torch.zeros_like(seeds)
    return Request(y, seeds, random.normal(seeds, start, start, Purpose.INITIAL, size))


def _integers(value: Tensor | Sequence[int], name: str) -> Tensor:
    vector = torch.as_tensor(value)
    kinds = (torch.int64, torch.int32, torch.int16, torch.uint8)
    if vector.dtype not in kinds or vector.dim() != 1 or vector.numel() == 0:
        raise ValueError(
            f"{name} must be a non-empty vector of integers, "
            f"got {str(vector.dtype).removeprefix('torch.')} of shape {list(vector.shape)}"
        )
    return vector.long()
