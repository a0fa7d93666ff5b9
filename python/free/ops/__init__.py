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

from free.ops.build import build_info, cuda_devices, require_kernels
from free.ops.evidence import ResponseSums, response_sums
from free.ops.finite import note_nonfinite_
from free.ops.guess import FirstGuesses, first_guesses
from free.ops.means import TargetMeans, target_means
from free.ops.noise import WindowNoise, window_noise
from free.ops.philox import philox_normal, philox_uniform
from free.ops.recycle import RecycledRows, recycled_rows
from free.ops.roll import roll_window_
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
