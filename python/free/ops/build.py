"""How the compiled core was built, and the devices that it sees."""

from __future__ import annotations

from typing import Any

# After torch, so that one OpenMP runtime serves both.
import torch

from free.devices import absent, find_device
from free.ops import _C
from free.ops.philox import philox_uniform

__all__ = ["build_info", "cuda_devices", "find_device_with_kernels", "require_kernels"]


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
    found = _C.cuda_devices()
    return found["devices"], found["reason"]


def require_kernels(device: torch.device) -> None:
    """Launch a kernel of the compiled core on a CUDA device.

    Raises
    ------
    RuntimeError
        If this build has no CUDA, or nothing for this GPU; says how to get what has.
    """
    _C.cuda_verify_workspace(1, 1, 1)  # refuses in a build without CUDA
    one = torch.zeros(1, dtype=torch.int64, device=device)
    try:
        philox_uniform(one, one, one, 0, 1)
    except RuntimeError as error:
        if "no kernel image" not in str(error):
            raise
        major, minor = torch.cuda.get_device_capability(device)
        raise RuntimeError(
            f"{error}: build free for compute capability {major}.{minor}, "
            f"pip install . -C cmake.define.CMAKE_CUDA_ARCHITECTURES={major}{minor}"
        ) from error


def find_device_with_kernels(name: torch.device | str, argument: str = "device") -> torch.device:
    """A device that can be sampled and trained on here: as :func:`free.devices.find_device`, and
    on CUDA with this package's kernels.

    Raises
    ------
    ValueError
        If there is none, or the kernels are not in this build or not for this GPU; says why, and
        what helps.
    """
    device = find_device(name, argument)
    if device.type == "cuda":
        try:
            require_kernels(device)
        except RuntimeError as error:
            raise absent(argument, name, str(error).splitlines()[0]) from error
    return device
