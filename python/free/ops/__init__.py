"""The compiled steps of a round, checked, registered as torch custom ops.

On the CPU and on CUDA the compiled core runs; tensors on other devices take the torch twins of
:mod:`free.reference`, and so do CUDA tensors where there are no kernels for them, with a warning.
Each op is also ``torch.ops.free.<name>``, with a fake implementation, so that graphs which contain
it can be traced, and without gradients. On CUDA nothing looks at values or waits for the device
(docs/cuda.md).
"""

from __future__ import annotations

from free.ops.build import build_info, cuda_devices
from free.ops.steps import (
    MOST_NUMBERS,
    VERIFIERS,
    WIDEST_ON_CUDA,
    advance_samples_,
    check_verifier,
    first_guesses,
    network_rows,
    note_nonfinite_,
    philox_normal,
    philox_uniform,
    response_sums,
    roll_window_,
    target_means,
    verify_window,
    verify_window_relaxed,
    window_noise,
)
from free.reference.draft import FirstGuesses, WindowNoise
from free.reference.recycle import Advanced, ResponseSums
from free.reference.teacher import NetworkRows, TargetMeans
from free.reference.verify import Verified, VerifiedRelaxed

__all__ = [
    "MOST_NUMBERS",
    "VERIFIERS",
    "WIDEST_ON_CUDA",
    "Advanced",
    "FirstGuesses",
    "NetworkRows",
    "ResponseSums",
    "TargetMeans",
    "Verified",
    "VerifiedRelaxed",
    "WindowNoise",
    "advance_samples_",
    "build_info",
    "check_verifier",
    "cuda_devices",
    "first_guesses",
    "network_rows",
    "note_nonfinite_",
    "philox_normal",
    "philox_uniform",
    "response_sums",
    "roll_window_",
    "target_means",
    "verify_window",
    "verify_window_relaxed",
    "window_noise",
]
