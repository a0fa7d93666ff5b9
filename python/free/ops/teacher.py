"""What a teacher said, guided, and the means that follow from it."""

from __future__ import annotations

from torch import Tensor

from free import reference
from free.ops.operator import operator
from free.reference.teacher import TargetMeans

__all__ = ["TargetMeans", "note_nonfinite_", "target_means"]


def _with_guess(eps: Tensor, means: Tensor, guess: Tensor) -> TargetMeans:
    """An image that was not asked for is an empty vector, because results may not be the same."""
    return TargetMeans(eps, means, eps if guess.dim() == 1 else guess)


target_means = operator(reference.target_means, _with_guess)
note_nonfinite_ = operator(reference.note_nonfinite_)
