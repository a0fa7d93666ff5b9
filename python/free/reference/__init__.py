"""The compiled kernels in plain torch: same names, same maths, any device.

These twins say what the kernels compute, are what the kernels are tested against, and run where no
kernel exists; :mod:`free.ops` has their signatures and documentation. They do not check their
arguments; :mod:`free.ops` does: its TypeError and ValueError name the argument, what was expected
and what came.
"""

from __future__ import annotations

from free.reference.draft import first_guesses, roll_window_, window_noise
from free.reference.drafter import drafter_rows
from free.reference.philox import philox4x32, philox_normal, philox_uniform
from free.reference.recycle import advance_samples_, response_sums
from free.reference.teacher import network_rows, note_nonfinite_, target_means
from free.reference.verify import verify_window, verify_window_relaxed

__all__ = [
    "advance_samples_",
    "drafter_rows",
    "first_guesses",
    "network_rows",
    "note_nonfinite_",
    "philox4x32",
    "philox_normal",
    "philox_uniform",
    "response_sums",
    "roll_window_",
    "target_means",
    "verify_window",
    "verify_window_relaxed",
    "window_noise",
]
