"""What a teacher returns: the types that models, engines, drafters and samplers share."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor


class TeacherOutput(NamedTuple):
    """The result of one teacher call on ``R`` rows.

    Attributes
    ----------
    eps : Tensor, shape [R, ...]
        Predicted noise, or the velocity of a network that predicts one, the shape of the input.
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
    """A teacher's output together with the rows it was called on: what drafting starts from.

    ``x [R, ...]``, float32, are the states and ``k [R]``, int64, their transitions; for the others
    see :class:`TeacherOutput`.
    """

    eps: Tensor
    feature: Tensor | None
    variance: Tensor | None
    x: Tensor
    k: Tensor


#: Precisions whose sums do not overflow.
_WIDE = (torch.float32, torch.float64)

#: ``teacher(x [R, ...], t [R], y [R]) -> TeacherOutput``.
Teacher = Callable[[Tensor, Tensor, Tensor], TeacherOutput]


def check_output(output: TeacherOutput, x: Tensor) -> None:
    """Refuse what is not a :class:`TeacherOutput` with an eps like the states ``x``.

    A wrong shape would broadcast into plausible, wrong samples.

    Raises TypeError or ValueError saying what a teacher must return, and what came.
    """
    if not isinstance(output, TeacherOutput):
        raise TypeError(f"teacher must return a TeacherOutput, got {type(output).__name__}")
    require_eps(output.eps, x, "teacher")


def require_eps(eps: Tensor, x: Tensor, network: str, what: str = "eps") -> None:
    """Refuse an output that is no floating-point tensor like ``x`` in shape and device.

    Raises TypeError or ValueError naming the network and ``what`` it should return.
    """
    if not isinstance(eps, Tensor) or not eps.is_floating_point():
        got = str(eps.dtype) if isinstance(eps, Tensor) else type(eps).__name__
        raise TypeError(f"{network} must return a floating-point {what}, got {got}")
    one = "an eps" if what == "eps" else f"a {what}"
    if eps.shape != x.shape:
        raise ValueError(
            f"{network} must return {one} of shape {list(x.shape)}, got {list(eps.shape)}"
        )
    if eps.device != x.device:
        raise ValueError(
            f"{network} must return {one} on the states' device, {x.device}, got {eps.device}"
        )


def require_unwritten(given: Tensor, network: str) -> None:
    """Refuse a network that has written to states that were made for it: they would be others than
    those that are verified.

    Raises ValueError naming the network.
    """
    if torch.compiler.is_compiling() or given.is_inference():
        return  # nobody counts
    if given._version:
        raise ValueError(
            f"{network} must not write to the states that it is given; copy them first"
        )


def is_finite(values: Tensor) -> bool:
    """Whether nothing is NaN or infinite. The sum is not if a term is not, in one pass; a sum that
    overflows says so of finite values, too: look closer then.
    """
    return math.isfinite(values.sum() if values.dtype in _WIDE else values.sum(dtype=torch.float32))


def require_finite(
    eps: Tensor, network: str, k: Tensor, samples: Tensor, what: str = "eps"
) -> None:
    """Refuse a network's output that has NaN or inf.

    Raises FloatingPointError naming the network, ``what`` it is, the transitions ``k [R]`` and the
    ``samples [R]``.
    """
    if is_finite(eps):
        return
    bad = ~torch.isfinite(eps).flatten(1).all(dim=1)
    if bad.any():
        raise FloatingPointError(
            f"{network} returned a non-finite {what} at step {sorted(set(k[bad].tolist()))} "
            f"for sample {sorted(set(samples[bad].tolist()))}"
        )
