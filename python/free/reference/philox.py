"""Twins of the counter-based noise, a row at a time."""

from __future__ import annotations

import math

import torch
from torch import Tensor

_WORD = 0xFFFFFFFF


def philox4x32(counter: Tensor, key: Tensor) -> Tensor:
    """Philox4x32-10 (Salmon et al., SC 2011) on 32-bit words held in int64.

    From ``counter [..., 4]`` and the low and high word of the ``key [..., 2]``, which broadcasts
    against it, to random words [..., 4]; all int64 in ``0 .. 2**32 - 1``.
    """
    x, y, z, w = counter.unbind(-1)
    k0, k1 = key.unbind(-1)
    for _ in range(10):
        # The products wrap at 64 bits as unsigned ones do; masking undoes the sign of the shift.
        p0, p1 = x * 0xD2511F53, z * 0xCD9E8D57
        x, y, z, w = (
            (p1 >> 32 & _WORD) ^ y ^ k0,
            p1 & _WORD,
            (p0 >> 32 & _WORD) ^ w ^ k1,
            p0 & _WORD,
        )
        k0, k1 = k0 + 0x9E3779B9 & _WORD, k1 + 0xBB67AE85 & _WORD
    return torch.stack((x, y, z, w), -1)


def philox_uniform(
    seeds: Tensor, transition: Tensor, round: Tensor, purpose: int, size: int
) -> Tensor:
    """Uniforms in [0, 1), multiples of 2**-24: float32 ``[R, size]``.

    ``seeds``, ``transition`` and ``round`` are int64 ``[R]``, the last two ``0 .. 2**32 - 1``,
    which is checked on the CPU; see :func:`free.rounds.noise.uniform`.
    """
    words = _words(seeds, transition, round, purpose, size)
    return ((words >> 8).float() * 2.0**-24)[:, :size].contiguous()


def philox_normal(
    seeds: Tensor, transition: Tensor, round: Tensor, purpose: int, size: int
) -> Tensor:
    """Standard normals by Box-Muller, evaluated in float64: float32 ``[R, size]``.

    Arguments are those of :func:`philox_uniform`; see :func:`free.rounds.noise.normal`.
    """
    pairs = _words(seeds, transition, round, purpose, size).unflatten(1, (-1, 2))
    radius_word, angle_word = pairs.unbind(-1)
    # float32 as in the kernel, so that the radius' uniform is the same number.
    u = ((radius_word >> 1).float() + 0.5) * 2.0**-31
    radius = torch.sqrt(-2.0 * torch.log(u.double()))
    angle = angle_word.double() * (2.0 * math.pi / 2**32)
    normals = torch.stack((radius * torch.cos(angle), radius * torch.sin(angle)), -1)
    return normals.flatten(1)[:, :size].float().contiguous()


def _words(seeds: Tensor, transition: Tensor, round: Tensor, purpose: int, size: int) -> Tensor:
    """Words ``[R, 4 * ceil(size / 4)]`` int64 of R rows."""
    block = torch.arange((size + 3) // 4, device=seeds.device).expand(len(seeds), -1)
    column = (transition[:, None], round[:, None], torch.full_like(seeds, purpose)[:, None])
    counter = torch.stack((block, *(word.expand_as(block) for word in column)), -1)
    key = torch.stack((seeds & _WORD, seeds >> 32 & _WORD), -1)
    return philox4x32(counter, key[:, None]).flatten(1)
