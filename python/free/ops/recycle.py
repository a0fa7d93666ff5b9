"""Which rows of a teacher call the next window recycles."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.utils.dlpack import to_dlpack

# After torch, so that one OpenMP runtime serves both.
from free import _C, reference
from free.ops.register import check_integer, check_tensor, register, stream_of

__all__ = ["RecycledRows", "recycled_rows"]

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


def _cuda(
    length: Tensor, advance: Tensor, width: int, discarded: bool, stride: int | None
) -> RecycledRows:
    rows = _fake(length, advance, width, discarded, stride)
    capsules = map(to_dlpack, (length, advance, *rows))
    _C.cuda_recycled_rows(discarded, stride or 0, *capsules, stream=stream_of(length))
    return rows


def _fake(
    length: Tensor, advance: Tensor, width: int, discarded: bool, stride: int | None
) -> RecycledRows:
    row = length.new_empty((length.shape[0], width), dtype=torch.int64)
    return RecycledRows(row, torch.empty_like(length, dtype=torch.int64))


register(f"recycled_rows({_ROWS}) -> (Tensor, Tensor)", None, _cuda, reference.recycled_rows, _fake)
