"""The compiled steps of a round, checked, registered as torch custom ops.

On the CPU and on CUDA the compiled core runs; tensors on other devices take the torch twins of
:mod:`free.reference`, and so do CUDA tensors where there are no kernels for them, with a warning.
Each op is also ``torch.ops.free.<name>``, with a fake implementation, so that graphs which contain
it can be traced, and without gradients. On CUDA nothing looks at values or waits for the device
(docs/cuda.md). What a step computes, and what it is given, is said by its twin.
"""

from __future__ import annotations

# Torch comes with it: before the compiled core, so that one OpenMP runtime serves both.
from free import reference
from free.ops._C import build_info, cuda_devices
from free.ops.contract import CONTRACTS
from free.ops.operator import operator as _operator
from free.reference.decide import DECISIONS
from free.reference.draft import FirstGuesses, WindowNoise
from free.reference.drafter import DrafterRows
from free.reference.recycle import Advanced, ResponseSums
from free.reference.teacher import NetworkRows, TargetMeans
from free.reference.verify import Verified, VerifiedRelaxed

__all__ = [
    "MOST_NUMBERS",
    "VERIFIERS",
    "WIDEST_ON_CUDA",
    "Advanced",
    "DrafterRows",
    "FirstGuesses",
    "NetworkRows",
    "ResponseSums",
    "TargetMeans",
    "Verified",
    "VerifiedRelaxed",
    "WindowNoise",
    "advance_samples_",
    "build_info",
    "cuda_devices",
    "drafter_rows",
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

#: Names of the verifiers.
VERIFIERS = tuple(DECISIONS)

#: Rows of a window that the CUDA kernels can verify, at most (``kMaxWidth`` of csrc/cuda).
WIDEST_ON_CUDA = 256

#: Numbers that are drawn of one seed at a time, at most, as the contract has it.
MOST_NUMBERS = next(a.high for a in CONTRACTS["philox_normal"].arguments if a.name == "size")


philox_normal = _operator(reference.philox_normal)
philox_uniform = _operator(reference.philox_uniform)

window_noise = _operator(reference.window_noise, WindowNoise)
first_guesses = _operator(reference.first_guesses, FirstGuesses)
roll_window_ = _operator(reference.roll_window_)

network_rows = _operator(reference.network_rows, NetworkRows)
drafter_rows = _operator(reference.drafter_rows, DrafterRows)
target_means = _operator(reference.target_means, TargetMeans)
note_nonfinite_ = _operator(reference.note_nonfinite_)

verify_window = _operator(reference.verify_window, Verified)
verify_window_relaxed = _operator(reference.verify_window_relaxed, VerifiedRelaxed)

advance_samples_ = _operator(reference.advance_samples_, Advanced)
response_sums = _operator(reference.response_sums, ResponseSums)
