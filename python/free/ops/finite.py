"""Whether a network's output is finite, remembered on the device."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.utils.dlpack import to_dlpack

# After torch, so that one OpenMP runtime serves both.
from free import _C, reference
from free.ops.register import check_integer, check_tensor, register, stream_of

__all__ = ["note_nonfinite_"]

_NOTE = (
    "Tensor(a!) failed, Tensor values, Tensor k, Tensor samples, SymInt first, Tensor? low, "
    "Tensor high"
)
_TYPES = (torch.float32, torch.float16, torch.bfloat16)


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
    low : Tensor or None, shape [B], int64
        None for 0.
    high : Tensor, shape [B], int64

    Raises
    ------
    TypeError, ValueError
        Naming the argument, what was expected and what came. Values are not looked at.
    RuntimeError
        On the CPU, where torch finds a sample that is not there. On CUDA that is passed over.
    """
    check_integer("first", first, 0)
    check_tensor("failed", failed, torch.int64)
    if failed.dim() != 1:
        raise ValueError(f"failed: expected shape [S], got {list(failed.shape)}")
    device = failed.device
    dtype = getattr(values, "dtype", None)
    check_tensor("values", values, dtype if dtype in _TYPES else torch.float32, device=device)
    check_tensor("samples", samples, torch.int64, device=device)
    if samples.dim() != 1 or len(samples) == 0:
        raise ValueError(f"samples: expected shape [B], got {list(samples.shape)}")
    if values.dim() < 2 or values.numel() == 0 or len(values) % len(samples):
        raise ValueError(
            f"values: expected a non-empty shape [a multiple of {len(samples)}, ...], "
            f"got {list(values.shape)}"
        )
    check_tensor("k", k, torch.int64, (len(values),), device)
    if low is not None:
        check_tensor("low", low, torch.int64, samples.shape, device)
    check_tensor("high", high, torch.int64, samples.shape, device)
    torch.ops.free.note_nonfinite_(failed, values, k, samples, first, low, high)


def _cuda(*arguments: Any) -> None:
    failed, values, k, samples, first, low, high = arguments
    given = (failed, values, k, samples, low, high)
    capsules = [None if tensor is None else to_dlpack(tensor) for tensor in given]
    _C.cuda_note_nonfinite(first, *capsules, stream=stream_of(failed))


def _fake(*arguments: Any) -> None:
    """Nothing is returned."""


register(f"note_nonfinite_({_NOTE}) -> ()", None, _cuda, reference.note_nonfinite_, _fake)
