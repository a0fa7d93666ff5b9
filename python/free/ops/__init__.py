"""Checked entry points to the compiled kernels, registered as torch custom ops.

On the CPU and on CUDA the compiled core runs; tensors on other devices take the torch twins of
:mod:`free.reference`. The ops are ``torch.ops.free.verify_window``, ``verify_window_relaxed``,
``first_guesses``, ``roll_window_``, ``response_sums``, ``philox_normal`` and ``philox_uniform``,
and ``window_noise``, ``target_means``, ``recycled_rows`` and ``note_nonfinite_``, which have no
kernel of their own on the CPU. They carry fake implementations, so that graphs which contain them
can be traced, and no gradients. On CUDA nothing looks at values or waits for the device
(docs/cuda.md).
"""

from __future__ import annotations

from free.ops.build import build_info, cuda_devices, find_device_with_kernels, require_kernels
from free.ops.draft import FirstGuesses, WindowNoise, first_guesses, roll_window_, window_noise
from free.ops.philox import philox_normal, philox_uniform
from free.ops.recycle import RecycledRows, ResponseSums, recycled_rows, response_sums
from free.ops.teacher import TargetMeans, note_nonfinite_, target_means
from free.ops.verify import (
    VERIFIERS,
    WIDEST_ON_CUDA,
    Verified,
    VerifiedRelaxed,
    check_verifier,
    verify_window,
    verify_window_relaxed,
)

__all__ = [
    "VERIFIERS",
    "WIDEST_ON_CUDA",
    "FirstGuesses",
    "RecycledRows",
    "ResponseSums",
    "TargetMeans",
    "Verified",
    "VerifiedRelaxed",
    "WindowNoise",
    "build_info",
    "check_verifier",
    "cuda_devices",
    "find_device_with_kernels",
    "first_guesses",
    "note_nonfinite_",
    "philox_normal",
    "philox_uniform",
    "recycled_rows",
    "require_kernels",
    "response_sums",
    "roll_window_",
    "target_means",
    "verify_window",
    "verify_window_relaxed",
    "window_noise",
]
