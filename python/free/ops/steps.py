"""Every compiled step of a round, under the name of its twin in :mod:`free.reference`.

What a step computes, and what it is given, is said there; here it becomes an op.
"""

from __future__ import annotations

from free import reference
from free.ops.contract import CONTRACTS
from free.ops.operator import operator
from free.reference.decide import DECISIONS
from free.reference.draft import FirstGuesses, WindowNoise
from free.reference.recycle import Advanced, ResponseSums
from free.reference.teacher import NetworkRows, TargetMeans
from free.reference.verify import Verified, VerifiedRelaxed

#: Names of the verifiers.
VERIFIERS = tuple(DECISIONS)

#: Rows of a window that the CUDA kernels can verify, at most (``kMaxWidth`` of csrc/cuda).
WIDEST_ON_CUDA = 256

#: Numbers that are drawn of one seed at a time, at most, as the contract has it.
MOST_NUMBERS = next(int(a.high) for a in CONTRACTS["philox_normal"].arguments if a.name == "size")


def check_verifier(verifier: str) -> None:
    """Raise a ``ValueError`` unless ``verifier`` is one of :data:`VERIFIERS`."""
    if verifier not in VERIFIERS:
        expected = ", ".join(map(repr, VERIFIERS))
        raise ValueError(f"verifier: expected one of {expected}, got {verifier!r}")


philox_normal = operator(reference.philox_normal)
philox_uniform = operator(reference.philox_uniform)

window_noise = operator(reference.window_noise, WindowNoise)
first_guesses = operator(reference.first_guesses, FirstGuesses)
roll_window_ = operator(reference.roll_window_)

network_rows = operator(reference.network_rows, NetworkRows)
target_means = operator(reference.target_means, TargetMeans)
note_nonfinite_ = operator(reference.note_nonfinite_)

verify_window = operator(reference.verify_window, Verified)
verify_window_relaxed = operator(reference.verify_window_relaxed, VerifiedRelaxed)

advance_samples_ = operator(reference.advance_samples_, Advanced)
response_sums = operator(reference.response_sums, ResponseSums)
