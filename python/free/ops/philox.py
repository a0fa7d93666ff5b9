"""Counter-based random rows; :mod:`free.rounds.noise` is the door to them."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.utils.dlpack import to_dlpack

from free import reference

# After torch, so that one OpenMP runtime serves both.
from free.ops import _C
from free.ops.operator import check_integer, check_tensor, register, stream_of

__all__ = ["philox_normal", "philox_uniform"]

_DRAWS = "Tensor seeds, Tensor transition, Tensor round, int purpose, SymInt size"


def philox_normal(
    seeds: Tensor, transition: Tensor, round: Tensor, purpose: int, size: int
) -> Tensor:
    """Counter-based standard normals: float32 ``[R, size]``. See :func:`free.rounds.noise.normal`.

    ``seeds``, ``transition`` and ``round`` are int64 ``[R]``, the last two in ``0 .. 2**32 - 1``.
    """
    _check_draws(seeds, transition, round, purpose, size)
    drawn: Tensor = torch.ops.free.philox_normal(seeds, transition, round, purpose, size)
    return drawn


def philox_uniform(
    seeds: Tensor, transition: Tensor, round: Tensor, purpose: int, size: int
) -> Tensor:
    """Counter-based uniforms in [0, 1): float32 ``[R, size]``. See :func:`free.rounds.noise.uniform`.

    ``seeds``, ``transition`` and ``round`` are int64 ``[R]``, the last two in ``0 .. 2**32 - 1``.
    """
    _check_draws(seeds, transition, round, purpose, size)
    drawn: Tensor = torch.ops.free.philox_uniform(seeds, transition, round, purpose, size)
    return drawn


def _check_draws(seeds: Tensor, transition: Tensor, round: Tensor, purpose: int, size: int) -> None:
    check_tensor("seeds", seeds, torch.int64)
    if seeds.dim() != 1:
        raise ValueError(f"seeds: expected shape [R], got {list(seeds.shape)}")
    check_tensor("transition", transition, torch.int64, seeds.shape, seeds.device)
    check_tensor("round", round, torch.int64, seeds.shape, seeds.device)
    check_integer("purpose", purpose, 0, 2**32 - 1)
    check_integer("size", size, 1)


def _philox_cpu(fill: Callable[..., None], *arguments: Any) -> Tensor:
    seeds, transition, round, purpose, size = arguments
    out = torch.empty(len(seeds), size)
    fill(to_dlpack(seeds), to_dlpack(transition), to_dlpack(round), purpose, to_dlpack(out))
    return out


def _philox_cuda(fill: Callable[..., None], *arguments: Any) -> Tensor:
    seeds, transition, round, purpose, _ = arguments
    out = _philox_fake(*arguments)
    columns = map(to_dlpack, (seeds, transition, round))
    fill(*columns, purpose, to_dlpack(out), stream=stream_of(seeds))
    return out


def _philox_fake(
    seeds: Tensor, transition: Tensor, round: Tensor, purpose: int, size: int
) -> Tensor:
    return seeds.new_empty((seeds.shape[0], size), dtype=torch.float32)


for _name_of, _on_cpu, _on_cuda, _twin in (
    ("philox_normal", _C.philox_normal, _C.cuda_philox_normal, reference.philox_normal),
    ("philox_uniform", _C.philox_uniform, _C.cuda_philox_uniform, reference.philox_uniform),
):
    register(
        f"{_name_of}({_DRAWS}) -> Tensor",
        partial(_philox_cpu, _on_cpu),
        partial(_philox_cuda, _on_cuda),
        _twin,
        _philox_fake,
    )
