"""Checked entry points to the compiled kernels, registered as torch custom ops.

On the CPU and on CUDA the compiled core runs; tensors on other devices take the torch twins of
:mod:`free.reference`. The ops are ``torch.ops.free.verify_window``, ``verify_window_relaxed``,
``roll_window``, ``philox_normal`` and ``philox_uniform``, and ``target_means`` and
``recycled_rows``, which have no kernel of their own on the CPU. They carry fake implementations, so
that graphs which contain them can be traced, and no gradients. On CUDA nothing looks at values or
waits for the device (docs/cuda.md).
"""

from __future__ import annotations

from free.ops.build import build_info, cuda_devices, require_kernels
from free.ops.means import TargetMeans, target_means
from free.ops.philox import philox_normal, philox_uniform
from free.ops.recycle import RecycledRows, recycled_rows
from free.ops.roll import Rolled, roll_window
from free.ops.verify import (
    VERIFIERS,
    WIDEST_ON_CUDA,
    Verified,
    check_verifier,
    verify_window,
)
from free.ops.verify_relaxed import VerifiedRelaxed, verify_window_relaxed

__all__ = [
    "VERIFIERS",
    "WIDEST_ON_CUDA",
    "RecycledRows",
    "Rolled",
    "TargetMeans",
    "Verified",
    "VerifiedRelaxed",
    "build_info",
    "check_verifier",
    "cuda_devices",
    "philox_normal",
    "philox_uniform",
    "recycled_rows",
    "require_kernels",
    "roll_window",
    "target_means",
    "verify_window",
    "verify_window_relaxed",
]
