"""What exactness hangs on, looked at while a pipeline runs.

That the network's rows do not depend on each other, that it says the same when it is asked the
same, and that the pipeline combines its branches row by row and in every step alike.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from free.pipeline.enable.rows import leaves

#: What can be done where a call is refused; ends the messages.
INSTEAD = "call free.disable(pipe) to draw step by step"
#: Largest difference of one row alone and among others, as a share of the row's largest value:
#: kernels add up in another order for another number of rows.
_ROUNDING = {torch.float64: 1e-6, torch.float32: 2e-3, torch.float16: 2e-2, torch.bfloat16: 1e-1}
#: The same of what a pipeline makes of a network's output, element by element or nearly so.
_COMBINING = {torch.float64: 1e-8, torch.float32: 1e-4, torch.float16: 1e-2, torch.bfloat16: 5e-2}


def require_rows_alone(alone: Any, among: Any, network: str) -> None:
    """Refuse a network whose rows depend on each other.

    ``alone`` and ``among`` are its outputs for one state, by itself and among others.
    """
    worst = _difference(alone, among)
    if worst > 1.0:
        raise ValueError(
            f"{network} must say the same of a state alone and among others, so that several can "
            f"be asked about at once; it differs {worst:.2g} times as much as rounding would: "
            "something in it mixes rows (batch normalisation in training, batch statistics): "
            f"call eval() on it, or {INSTEAD}"
        )


def require_repeatable(first: Any, second: Any, network: str) -> None:
    """Refuse a network that says other things when it is asked the same again."""
    worst = _difference(second, first)
    if worst > 1.0:
        raise ValueError(
            f"{network} must say the same when it is asked the same, got outputs that differ "
            f"{worst:.2g} times as much as rounding would: dropout (call eval() on it), or "
            "something kept from call to call"
        )


def require_row_local(made: Tensor, expected: Tensor, pipeline: str) -> None:
    """Refuse a pipeline that makes another prediction of the same output of its network.

    ``expected`` is what it made of it in the first round, ``made`` in this one, beside other rows.
    """
    worst = _worst(made, expected, _COMBINING)
    if worst > 1.0:
        raise ValueError(
            f"{pipeline} must make its prediction of the network's output row by row and in every "
            "step alike, got another one of the same output in a later step: guidance that depends "
            "on the step, on the latents or on other rows (a schedule or an interval of guidance, "
            f"statistics of the batch) cannot be speculated here: leave it out, or {INSTEAD}"
        )


def _difference(one: Any, other: Any) -> float:
    """The largest difference of two outputs, in units of what rounding may make."""
    pairs = zip(leaves(one), leaves(other), strict=True)
    tensors = [(a, b) for (_, a), (_, b) in pairs if isinstance(a, Tensor)]
    return max((_worst(a, b, _ROUNDING) for a, b in tensors if a.is_floating_point()), default=0.0)


def _worst(value: Tensor, expected: Tensor, allowed: dict[torch.dtype, float]) -> float:
    if value.shape != expected.shape:
        return float("inf")
    a, b = value.double(), expected.double()
    scale = float(b.abs().max().clamp(min=1e-12))
    return float((a - b).abs().max()) / (scale * allowed.get(value.dtype, 1e-1))
