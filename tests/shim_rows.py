"""note_nonfinite_ and response_sums by the kernels' text; see :mod:`tests.shim`."""

from __future__ import annotations

import math
from ctypes import POINTER, Structure, c_char_p, c_double, c_int, c_int64
from typing import Any

import torch
from torch import Tensor

from free.ops import ResponseSums
from tests.shim import DTYPES, Kernels, pointer


class _NoteNonfinite(Structure):
    _fields_ = (
        *((name, c_int64) for name in ("batch", "entries", "size", "known", "first")),
        ("values", pointer),
        ("type", c_int),
        *((name, pointer) for name in ("k", "samples", "low", "high", "failed")),
    )


class _ResponseSums(Structure):
    _fields_ = (
        *((name, c_int64) for name in ("batch", "width", "size", "past", "entries")),
        ("memory", c_double),
        *((name, pointer) for name in ("states", "guess", "past_x", "past_guess", "row")),
        *((name, pointer) for name in ("known", "length", "advance", "dot", "square")),
        *((name, pointer) for name in ("dot_after", "square_after")),
    )


def note_nonfinite_(
    kernels: Kernels,
    failed: Tensor,
    values: Tensor,
    k: Tensor,
    samples: Tensor,
    first: int,
    low: Tensor | None,
    high: Tensor,
) -> None:
    guarded = kernels._guard(failed, values, k, samples, high, *([] if low is None else [low]))
    p_failed, p_values, p_k, p_samples, p_high, *p_low = (tensor.pointer for tensor in guarded)
    rows = _NoteNonfinite(
        len(samples),
        len(values) // len(samples),
        values[0].numel(),
        len(failed),
        first,
        p_values,
        DTYPES.index(values.dtype),
        p_k,
        p_samples,
        p_low[0] if p_low else None,
        p_high,
        p_failed,
    )
    kernels.door("shim_note", c_char_p, POINTER(_NoteNonfinite))
    kernels._call("shim_note", rows, tensors=guarded)
    failed.copy_(guarded[0].tensor)


def response_sums(kernels: Kernels, *arguments: Any) -> ResponseSums:
    *given, memory = arguments
    states, _, past_x, _, row, *_, dot, square = given
    batch, width = states.shape[:2]
    size = states[0, 0].numel()
    room = kernels.door("shim_response_workspace", c_int64, *[c_int64] * 3)
    unwritten = torch.full((room(batch, width, size) // 8,), math.nan, dtype=torch.float64)
    results = (torch.full_like(column, -77) for column in (dot, square))
    guarded = kernels._guard(*given, *results, unwritten)
    *pointers, space = (tensor.pointer for tensor in guarded)
    sums = _ResponseSums(batch, width, size, len(past_x), row.shape[1], memory, *pointers)
    kernels.door("shim_response", c_char_p, POINTER(_ResponseSums), pointer)
    kernels._call("shim_response", sums, space, tensors=guarded)
    return ResponseSums(*(tensor.tensor for tensor in guarded[-3:-1]))
