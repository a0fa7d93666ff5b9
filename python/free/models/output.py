"""What a teacher returns: the types that models, engines, drafters and samplers share."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

__all__ = ["TeacherOutput", "TeacherRows"]


class TeacherOutput(NamedTuple):
    """Result of one teacher call on ``R`` rows.

    Attributes
    ----------
    eps : Tensor, shape [R, ...]
        Predicted noise, the shape of the input.
    feature : Tensor or None, shape [R, T, E]
        Output of the top block before the final layer. Under guidance
        ``[R, 2, T, E]``: with the label, then without.
    variance : Tensor or None, shape [R, ...]
        The variance channels of a network with learned sigma, as it returns them:
        log-variance runs from the posterior's at -1 to beta's at 1.
    """

    eps: Tensor
    feature: Tensor | None = None
    variance: Tensor | None = None


class TeacherRows(NamedTuple):
    """A teacher's output together with the rows it was asked about: what drafting starts from.

    Attributes
    ----------
    eps, feature, variance
        As in :class:`TeacherOutput`.
    x : Tensor, shape [R, ...], float32
        The states.
    k : Tensor, shape [R], int64
        Their transitions.
    """

    eps: Tensor
    feature: Tensor | None
    variance: Tensor | None
    x: Tensor
    k: Tensor
