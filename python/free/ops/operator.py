"""What the ops share: the checks of a tensor, and the registration with torch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

__all__ = ["check_integer", "check_tensor", "register", "stream_of"]

_library = torch.library.Library("free", "DEF")


def check_tensor(
    name: str,
    tensor: Tensor,
    dtype: torch.dtype,
    shape: tuple[int, ...] | None = None,
    device: torch.device | None = None,
) -> None:
    """Raise unless ``tensor`` is a contiguous tensor of this dtype, shape and device.

    Raises
    ------
    TypeError
        For what is no tensor, or one of another dtype.
    ValueError
        For another shape or device, and for gaps in memory.
    """
    if not isinstance(tensor, Tensor):
        raise TypeError(f"{name}: expected a tensor, got {type(tensor).__name__}")
    if tensor.dtype is not dtype:
        raise TypeError(f"{name}: expected {_name(dtype)}, got {_name(tensor.dtype)}")
    if shape is not None and tensor.shape != shape:
        raise ValueError(f"{name}: expected shape {list(shape)}, got {list(tensor.shape)}")
    if device is not None and tensor.device != device:
        raise ValueError(f"{name}: expected a tensor on {device}, got one on {tensor.device}")
    if not tensor.is_contiguous():
        raise ValueError(
            f"{name}: expected a contiguous tensor, got strides {list(tensor.stride())}"
        )


def check_integer(name: str, value: int, least: int, most: int = 2**63 - 1) -> None:
    """Raise unless ``value`` is an integer from ``least`` to ``most``.

    Raises
    ------
    TypeError
        For what is no integer.
    ValueError
        For one out of range.
    """
    if isinstance(value, bool) or not isinstance(value, (int, torch.SymInt)):
        raise TypeError(f"{name}: expected an integer, got {type(value).__name__}")
    if value < least or value > most:
        expected = f"at least {least}" if value < least and most >= 2**63 - 1 else None
        expected = expected or f"a value in {least}..{most}"
        raise ValueError(f"{name}: expected {expected}, got {value}")


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def stream_of(tensor: Tensor) -> int:
    """The current stream of a CUDA tensor's device, as the compiled core takes it."""
    stream: int = torch.cuda.current_stream(tensor.device).cuda_stream
    return stream


def register(
    schema: str,
    cpu: Callable[..., Any] | None,
    cuda: Callable[..., Any],
    twin: Callable[..., Any],
    fake: Callable[..., Any],
) -> None:
    """Define ``torch.ops.free.<schema>``: compiled on the CPU, unless that is None, and on CUDA;
    the twin elsewhere.

    In a build without CUDA a CUDA tensor raises, and says how to get another: the twins would
    hide behind a GPU that is slow. What is registered for CUDA neither waits for the device nor
    looks at values, so that a CUDA graph can capture it.
    """
    name = schema.partition("(")[0]
    _library.define(schema, tags=(torch.Tag.pt2_compliant_tag,))
    if cpu is not None:
        _library.impl(name, cpu, "CPU")
    _library.impl(name, cuda, "CUDA")
    _library.impl(name, twin, "CompositeExplicitAutograd")
    # No gradients: the op does not record itself, instead of warning in a backward pass.
    _library.impl(name, torch.library.fallthrough_kernel, "Autograd")
    torch.library.register_fake(f"free::{name}", fake, lib=_library)
