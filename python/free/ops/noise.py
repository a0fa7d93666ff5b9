"""The noise of a window, in one pass."""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils.dlpack import to_dlpack

# After torch, so that one OpenMP runtime serves both.
from free import _C, reference
from free.ops.register import check_integer, check_tensor, register, stream_of

__all__ = ["WindowNoise", "window_noise"]

_NOISE = (
    "Tensor seeds, Tensor k, Tensor? rounds, Tensor length, SymInt width, SymInt size, "
    "int purpose, int decision"
)


class WindowNoise(NamedTuple):
    """What a window draws.

    Attributes
    ----------
    noise : Tensor, shape [B, W - 1, D], float32
        Standard normals of the drafts.
    uniforms : Tensor, shape [B, W - 1], float32
        In [0, 1), of the decisions about them.
    last : Tensor, shape [B, D], float32
        Standard normals of transition ``length - 1``, which is sampled from the target if every
        draft stands.
    """

    noise: Tensor
    uniforms: Tensor
    last: Tensor


def window_noise(
    seeds: Tensor,
    k: Tensor,
    rounds: Tensor | None,
    length: Tensor,
    width: int,
    size: int,
    purpose: int,
    decision: int,
) -> WindowNoise:
    """The numbers of :func:`philox_normal` and :func:`philox_uniform` for transitions
    ``k .. k + width - 1`` of each sample.

    Parameters
    ----------
    seeds : Tensor, shape [B], int64
    k : Tensor, shape [B], int64
        Where the windows begin, ``0 .. 2**32 - width``.
    rounds : Tensor or None, shape [B], int64
        Which of a transition's numbers, ``0 .. 2**32 - 1``; None for the first of all.
    length : Tensor, shape [B], int32
        Rows of each window; what is not in ``1 .. width`` counts as the nearest that is.
    width, size : int
        W and D, at least 1.
    purpose, decision : int
        Last words of the normals' and of the uniforms' counters (:class:`free.random.Purpose`).

    Returns
    -------
    WindowNoise

    Raises
    ------
    TypeError, ValueError
        Naming the argument, what was expected and what came; on the CPU also for a ``k``, as
        ``transition``, or ``rounds``, as ``round``, out of range. On CUDA values are not looked
        at.
    """
    check_tensor("seeds", seeds, torch.int64)
    if seeds.dim() != 1:
        raise ValueError(f"seeds: expected shape [B], got {list(seeds.shape)}")
    check_tensor("k", k, torch.int64, seeds.shape, seeds.device)
    if rounds is not None:
        check_tensor("rounds", rounds, torch.int64, seeds.shape, seeds.device)
    check_tensor("length", length, torch.int32, seeds.shape, seeds.device)
    for name, value in (("width", width), ("size", size)):
        check_integer(name, value, 1)
    for name, value in (("purpose", purpose), ("decision", decision)):
        check_integer(name, value, 0, 2**32 - 1)
    drawn = torch.ops.free.window_noise(seeds, k, rounds, length, width, size, purpose, decision)
    return WindowNoise(*drawn)


def _cuda(*arguments: Any) -> WindowNoise:
    seeds, k, rounds, length, _, _, purpose, decision = arguments
    drawn = _fake(*arguments)
    given = (seeds, k, rounds, length, *drawn)
    capsules = [None if tensor is None else to_dlpack(tensor) for tensor in given]
    _C.cuda_window_noise(purpose, decision, *capsules, stream=stream_of(seeds))
    return drawn


def _fake(
    seeds: Tensor,
    k: Tensor,
    rounds: Tensor | None,
    length: Tensor,
    width: int,
    size: int,
    purpose: int,
    decision: int,
) -> WindowNoise:
    batch = seeds.shape[0]
    shapes = ((batch, width - 1, size), (batch, width - 1), (batch, size))
    return WindowNoise(*(seeds.new_empty(shape, dtype=torch.float32) for shape in shapes))


def _cpu(*arguments: Any) -> WindowNoise:
    """By the kernels for rows."""
    by_rows = partial(
        reference.window_noise,
        normal=torch.ops.free.philox_normal,
        uniform=torch.ops.free.philox_uniform,
    )
    return WindowNoise(*by_rows(*arguments))


register(
    f"window_noise({_NOISE}) -> (Tensor, Tensor, Tensor)",
    _cpu,
    _cuda,
    reference.window_noise,
    _fake,
)
