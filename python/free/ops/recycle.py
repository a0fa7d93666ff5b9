"""Which rows of a teacher call the next window recycles."""

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
    "RecycledRows",
    "ResponseSums",
    "recycled_rows",
    "response_sums",
]

_ROWS = "Tensor length, Tensor advance, SymInt width, bool discarded, SymInt? stride"


class RecycledRows(NamedTuple):
    """Rows of a teacher call, as seen from each sample's next window.

    Attributes
    ----------
    row : Tensor, shape [B, W], int64
        Entry ``i`` of a sample: the row of the transition just made and the ``i``-th after it, or
        the sample's last.
    known : Tensor, shape [B], int64, in ``1 .. W``
        How many entries are of their own transition.
    """

    row: Tensor
    known: Tensor


def recycled_rows(
    length: Tensor, advance: Tensor, width: int, discarded: bool, stride: int | None = None
) -> RecycledRows:
    """Shift the rows of a teacher call by what each sample advanced.

    Parameters
    ----------
    length, advance : Tensor, shape [B], int32
        Rows of each sample, and transitions made of them, ``1 .. length``.
    width : int
        W of the next window, at least 1.
    discarded : bool
        Whether rows behind a rejection are kept; otherwise only that of the transition made.
    stride : int or None
        Rows from a sample's first to the next one's, at least 1; None where samples follow each
        other without a gap.

    Returns
    -------
    RecycledRows

    Raises
    ------
    TypeError, ValueError
        Naming the argument, what was expected and what came. Values of ``length`` and ``advance``
        are not looked at.
    """
    check_tensor("length", length, torch.int32)
    if length.dim() != 1:
        raise ValueError(f"length: expected shape [B], got {list(length.shape)}")
    check_tensor("advance", advance, torch.int32, length.shape, length.device)
    check_integer("width", width, 1)
    if stride is not None:
        check_integer("stride", stride, -(2**63))
        if stride < 1:
            raise ValueError(f"stride: expected at least 1, or None, got {stride}")
    return RecycledRows(*torch.ops.free.recycled_rows(length, advance, width, discarded, stride))


def _rows_cuda(
    length: Tensor, advance: Tensor, width: int, discarded: bool, stride: int | None
) -> RecycledRows:
    rows = _rows_fake(length, advance, width, discarded, stride)
    capsules = map(to_dlpack, (length, advance, *rows))
    _C.cuda_recycled_rows(discarded, stride or 0, *capsules, stream=stream_of(length))
    return rows


def _rows_fake(
    length: Tensor, advance: Tensor, width: int, discarded: bool, stride: int | None
) -> RecycledRows:
    row = length.new_empty((length.shape[0], width), dtype=torch.int64)
    return RecycledRows(row, torch.empty_like(length, dtype=torch.int64))


register(
    f"recycled_rows({_ROWS}) -> (Tensor, Tensor)",
    None,
    _rows_cuda,
    reference.recycled_rows,
    _rows_fake,
)

_SUMS = (
    "Tensor states, Tensor guess, Tensor past_x, Tensor past_guess, Tensor row, Tensor known, "
    "Tensor length, Tensor advance, Tensor dot, Tensor square, float memory"
)


class ResponseSums(NamedTuple):
    """Sums over transitions that the teacher has seen twice.

    Attributes
    ----------
    dot, square : Tensor, shape [B], float32
    """

    dot: Tensor
    square: Tensor


def response_sums(
    states: Tensor,
    guess: Tensor,
    past_x: Tensor,
    past_guess: Tensor,
    row: Tensor,
    known: Tensor,
    length: Tensor,
    advance: Tensor,
    dot: Tensor,
    square: Tensor,
    memory: float,
) -> ResponseSums:
    """``memory dot + sum <x - x_old, g - g_old>`` and ``memory square + sum |x - x_old|^2``.

    The sums are over the transitions that were made from a draft and that the teacher had seen
    before: the first ``min(advance, length - 1, known - 1)`` of a window.

    Parameters
    ----------
    states, guess : Tensor, shape [B, W, ...], float32
        States of the window, and what the teacher says of them, as guesses.
    past_x, past_guess : Tensor, shape [R, ...], float32
        The same of its call before.
    row : Tensor, shape [B, V], int64, V >= W
        Entry ``i + 1`` is that call's row of the window's transition ``i``.
    known : Tensor, shape [B], int64
    length, advance : Tensor, shape [B], int32
    dot, square : Tensor, shape [B], float32
    memory : float
        In [0, 1].

    Returns
    -------
    ResponseSums

    Raises
    ------
    TypeError, ValueError
        Naming the argument, what was expected and what came; on the CPU also for a row that counts
        and is not there. On CUDA values are not looked at, and the nearest row stands in.

    Notes
    -----
    Sums are taken in float64, in an order that depends on nothing but the size of a state.
    """
    check_tensor("states", states, torch.float32)
    if states.dim() < 3 or states.numel() == 0:
        raise ValueError(
            f"states: expected a non-empty shape [B, W, ...], got {list(states.shape)}"
        )
    (batch, width, *sample), device = states.shape, states.device
    check_tensor("guess", guess, torch.float32, states.shape, device)
    check_tensor("past_x", past_x, torch.float32, device=device)
    if list(past_x.shape[1:]) != sample or len(past_x) == 0:
        expected = ", ".join(map(str, ("R", *sample)))
        raise ValueError(f"past_x: expected shape [{expected}], got {list(past_x.shape)}")
    check_tensor("past_guess", past_guess, torch.float32, past_x.shape, device)
    check_tensor("row", row, torch.int64, device=device)
    if row.dim() != 2 or len(row) != batch or row.shape[1] < width:
        raise ValueError(f"row: expected shape [{batch}, at least {width}], got {list(row.shape)}")
    check_tensor("known", known, torch.int64, (batch,), device)
    for name, column in (("length", length), ("advance", advance)):
        check_tensor(name, column, torch.int32, (batch,), device)
    for name, column in (("dot", dot), ("square", square)):
        check_tensor(name, column, torch.float32, (batch,), device)
    if not 0.0 <= memory <= 1.0:
        raise ValueError(f"memory: expected a value in [0, 1], got {memory}")
    rows = (states, guess, past_x, past_guess, row, known, length, advance, dot, square)
    return ResponseSums(*torch.ops.free.response_sums(*rows, memory))


def _sums_cpu(*arguments: Any) -> ResponseSums:
    *inputs, memory = arguments
    sums = _sums_fake(*arguments)
    _C.response_sums(memory, *map(to_dlpack, (*inputs, *sums)))
    return sums


def _sums_cuda(*arguments: Any) -> ResponseSums:
    *inputs, memory = arguments
    states = inputs[0]
    sums = _sums_fake(*arguments)
    batch, width = states.shape[:2]
    count = _C.cuda_response_workspace(batch, width, states[0, 0].numel())
    space = states.new_empty(count, dtype=torch.float64)
    capsules = map(to_dlpack, (*inputs, *sums, space))
    _C.cuda_response_sums(memory, *capsules, stream=stream_of(states))
    return sums


def _sums_fake(*arguments: Any) -> ResponseSums:
    *_, dot, square, _ = arguments
    return ResponseSums(torch.empty_like(dot), torch.empty_like(square))


register(
    f"response_sums({_SUMS}) -> (Tensor, Tensor)",
    _sums_cpu,
    _sums_cuda,
    reference.response_sums,
    _sums_fake,
)
