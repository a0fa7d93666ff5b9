"""How the compiled core was built, and the devices that it sees."""

from __future__ import annotations

from typing import Any

# After torch, so that one OpenMP runtime serves both.
import torch  # noqa: F401

from free.ops import _C


def build_info() -> dict[str, Any]:
    """How the compiled core was built: ``compiler``, ``cuda`` (version or None), ``openmp``, and
    the instruction set ``simd`` that it uses on this machine.
    """
    info: dict[str, Any] = _C.build_info()
    return info


def cuda_devices() -> tuple[list[dict[str, Any]], str | None]:
    """CUDA devices as the compiled core sees them, each with ``name`` and ``capability``, and the
    reason why there are none.
    """
    return _C.cuda_devices()
