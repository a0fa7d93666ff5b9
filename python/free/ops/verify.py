"""Verifying a window of drafts."""

from __future__ import annotations

from free import reference
from free.ops.operator import operator
from free.reference.decide import DECISIONS
from free.reference.verify import Verified, VerifiedRelaxed

__all__ = [
    "VERIFIERS",
    "WIDEST_ON_CUDA",
    "Verified",
    "VerifiedRelaxed",
    "check_verifier",
    "verify_window",
    "verify_window_relaxed",
]

#: Names of the verifiers.
VERIFIERS = tuple(DECISIONS)

#: Rows of a window that the CUDA kernels can verify, at most (``kMaxWidth`` of csrc/cuda).
WIDEST_ON_CUDA = 256


def check_verifier(verifier: str) -> None:
    """Raise a ``ValueError`` unless ``verifier`` is one of :data:`VERIFIERS`."""
    if verifier not in VERIFIERS:
        expected = ", ".join(map(repr, VERIFIERS))
        raise ValueError(f"verifier: expected one of {expected}, got {verifier!r}")


verify_window = operator(reference.verify_window, Verified)
verify_window_relaxed = operator(reference.verify_window_relaxed, VerifiedRelaxed)
