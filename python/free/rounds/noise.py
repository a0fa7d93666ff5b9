"""Counter-based noise: every number is a function of a request's seed and of where it is used.

Philox4x32-10 with the request's 64-bit seed as its key and (element block, transition, round,
purpose) as its counter. Nothing is drawn from a stream, so a request's noise does not depend on
which other requests share its batch, on the order of the calls, or on the device (up to rounding).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from enum import IntEnum

import numpy as np
import torch
from torch import Tensor

from free import ops

#: One value for all rows, or one a row.
Integers = int | Sequence[int] | Tensor

_INTEGER_TYPES = (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8)


class Purpose(IntEnum):
    """What a number is used for: the last word of the counter. Values are part of the law's
    reproducibility: they never change.
    """

    INITIAL = 0
    """The state that sampling starts from."""
    TRANSITION = 1
    """The noise of a transition."""
    DECISION = 2
    """The uniform that accepts or rejects a draft."""
    LABEL = 3
    """The class of an image that may be of any."""


#: Looked up once: an enumeration's members are slow to get.
_TRANSITION, _DECISION = int(Purpose.TRANSITION), int(Purpose.DECISION)


def normal(
    seeds: Integers,
    transition: Integers,
    round: Integers,
    purpose: Purpose | int,
    shape: Sequence[int],
) -> Tensor:
    """Independent standard normals.

    Parameters
    ----------
    seeds : int, sequence of int or Tensor, shape [R], int64
        64-bit keys, ``-2**63 .. 2**64 - 1``; negative ones are read as two's complement.
    transition, round : int, sequence of int or Tensor, shape [R], any integer dtype
        Words of the counter, ``0 .. 2**32 - 1``. One value serves all rows.
    purpose : Purpose
        Numbers of different purposes are independent.
    shape : sequence of int
        Axes of one row; ``()`` draws one number a row.

    Returns
    -------
    Tensor, shape [R, *shape], float32
        On the device of the tensors among the arguments. At most 6.67 in absolute value.

    Raises
    ------
    TypeError, ValueError
        Values of ``transition`` and ``round`` are looked at on the CPU only.

    References
    ----------
    Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011; Box and Muller, 1958.
    """
    return _draw(ops.philox_normal, seeds, transition, round, purpose, shape)


def uniform(
    seeds: Integers,
    transition: Integers,
    round: Integers,
    purpose: Purpose | int,
    shape: Sequence[int],
) -> Tensor:
    """Independent uniforms in [0, 1), multiples of ``2**-24``; all else is as in :func:`normal`."""
    return _draw(ops.philox_uniform, seeds, transition, round, purpose, shape)


def window_numbers(
    like: Tensor,
    seeds: Tensor,
    k: Tensor,
    rounds: Tensor | None,
    widths: Tensor | None,
    *,
    W: int,
    steps: int,
) -> ops.WindowNoise:
    """What windows of at most ``W`` rows draw, for states shaped as ``like [B, ...]``.

    They begin at transitions ``k [B]`` of ``steps``, and ``widths [B]`` rows are asked for, or
    ``W`` of each. ``rounds [B]`` says which of a transition's numbers; None where it has only one
    of each kind.
    """
    return ops.window_noise(
        seeds,
        k,
        rounds,
        widths,
        like,
        width=W,
        steps=steps,
        purpose=_TRANSITION,
        decision=_DECISION,
    )


def as_seeds(
    seeds: int | Sequence[int],
    device: torch.device | str = "cpu",
    name: str = "seeds",
) -> Tensor:
    """Seeds as the tensor that the noise functions take: [R], int64.

    They may be ``-2**63 .. 2**64 - 1``; values from ``2**63`` on wrap to the same 64 bits. Raises
    TypeError or ValueError, which call them ``name``, for what is no integer or does not fit 64
    bits.
    """
    values = _integers(name, seeds, -(2**63), 2**64, "-2**63..2**64-1")
    signed = [(seed + 2**63) % 2**64 - 2**63 for seed in values]
    return torch.tensor(signed, dtype=torch.int64, device=device)


def _draw(
    draw: Callable[[Tensor, Tensor, Tensor, int, int], Tensor],
    seeds: Integers,
    transition: Integers,
    round: Integers,
    purpose: Purpose | int,
    shape: Sequence[int],
) -> Tensor:
    given = {"seeds": seeds, "transition": transition, "round": round}
    devices = (value.device for value in given.values() if isinstance(value, Tensor))
    device = next(devices, torch.device("cpu"))
    columns = {name: _column(name, value, device) for name, value in given.items()}
    # The first argument with a value for each row says how many rows there are.
    rows = next(
        (len(columns[name]) for name in given if not isinstance(given[name], (int, np.integer))), 1
    )
    for name, value in given.items():
        if isinstance(value, (int, np.integer)):
            columns[name] = columns[name].repeat(rows)
    key, k, n = columns["seeds"], columns["transition"], columns["round"]
    drawn = draw(key, k, n, int(purpose), _elements(shape))
    return drawn.view(rows, *shape)


def _column(name: str, value: Integers, device: torch.device) -> Tensor:
    """The values as int64 ``[R]``, ``[1]`` for a single one."""
    if isinstance(value, Tensor):
        if value.dtype not in _INTEGER_TYPES:
            dtype = str(value.dtype).removeprefix("torch.")
            raise TypeError(f"{name}: expected integers, got {dtype}")
        if value.dim() != 1:
            raise ValueError(f"{name}: expected shape [R], got {list(value.shape)}")
        return value.long().contiguous()
    if name == "seeds":
        return as_seeds(value, device)
    values = _integers(name, value, 0, 2**32, "0..4294967295")
    return torch.tensor(values, dtype=torch.int64, device=device)


def _integers(
    name: str, value: int | Sequence[int], low: int, end: int, expected: str
) -> Sequence[int]:
    values = value if isinstance(value, Sequence) else [value]
    for entry in values:
        if isinstance(entry, bool) or not isinstance(entry, (int, np.integer)):
            raise TypeError(f"{name}: expected integers, got {type(entry).__name__}")
        if not low <= entry < end:
            raise ValueError(f"{name}: expected values in {expected}, got {entry}")
    return [int(entry) for entry in values]


def _elements(shape: Sequence[int]) -> int:
    for extent in shape:
        if isinstance(extent, bool) or not isinstance(extent, (int, np.integer)) or extent < 1:
            raise ValueError(f"shape: expected positive integers, got {list(shape)}")
    return math.prod(shape)
