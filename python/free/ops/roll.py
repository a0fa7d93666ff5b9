"""Rolling a window of states forward from guesses."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.utils.dlpack import to_dlpack

# After torch, so that one OpenMP runtime serves both.
from free import _C, reference
from free.ops.register import check_integer, check_tensor, register, stream_of

__all__ = ["roll_window_"]

_ROLL = (
    "Tensor(a!) states, Tensor(b!) means, Tensor(c!) guesses, Tensor noise, Tensor intercept, "
    "Tensor slope, Tensor? change, Tensor? settled, bool adds, Tensor a, Tensor b, Tensor sigma, "
    "SymInt first, SymInt end"
)


def roll_window_(
    states: Tensor,
    means: Tensor,
    guesses: Tensor,
    noise: Tensor,
    intercept: Tensor,
    slope: Tensor,
    change: Tensor | None,
    settled: Tensor | None,
    adds: bool,
    a: Tensor,
    b: Tensor,
    sigma: Tensor,
    first: int,
    end: int,
) -> None:
    """Roll a window of states forward from guesses, in place.

    For transitions ``j = first .. end - 1`` of a window of P,

        guess_{j+1} = intercept_j + slope_j x_j          where j < settled, or all without a change
                      change_j (+ guess_j if it adds)    otherwise
        mean_{j+1}  = a_j x_j + b_j guess_{j+1}
        x_{j+1}     = mean_{j+1} + sigma_j noise_j

    A guess stands for whatever the network predicts that a transition's mean is affine in, with
    the coefficients that belong to it: eps, or the predicted image ``x0``.

    Parameters
    ----------
    states, means, guesses : Tensor, shape [B, P + 1, ...], float32
        Entry ``j`` is read as of the transition before, entries ``first + 1 .. end`` are written.
        At least one axis follows P; only P may be 0.
    noise : Tensor, shape [B, P, ...], float32
        N(0, I).
    intercept : Tensor, shape [B, P, ...], float32
    slope : Tensor, shape [B, P], float32
    change : Tensor or None, shape [B, P, ...], float32
        What the drafter says.
    settled : Tensor or None, shape [B], int64
        With ``change``, how many transitions it says nothing of.
    adds : bool
        Whether changes add up along the window.
    a, b, sigma : Tensor, shape [B, P + 1], float32
        The transitions' coefficients; the last are not used.
    first, end : int
        ``0 <= first <= end <= P``.

    Raises
    ------
    TypeError
        For an argument that is no tensor, or a tensor of another dtype.
    ValueError
        For shapes that do not match or are empty, non-contiguous tensors, different devices, a
        change without settled, a span that is not in the window.

    Notes
    -----
    Values are not looked at: a NaN spreads to the later states of its own element and no further.
    The result for a sample depends neither on its batch nor on threads nor on the instruction set.
    """
    check_tensor("states", states, torch.float32)
    shape = states.shape
    if len(shape) < 3 or states.numel() == 0:
        raise ValueError(f"states: expected a non-empty shape [B, P + 1, ...], got {list(shape)}")
    batch, width, *sample = shape
    device, drafts = states.device, (batch, width - 1, *sample)
    check_tensor("means", means, torch.float32, shape, device)
    check_tensor("guesses", guesses, torch.float32, shape, device)
    check_tensor("noise", noise, torch.float32, drafts, device)
    check_tensor("intercept", intercept, torch.float32, drafts, device)
    check_tensor("slope", slope, torch.float32, (batch, width - 1), device)
    if (change is None) != (settled is None):
        raise ValueError("settled: expected with change, and only then, got one of them")
    if change is not None and settled is not None:
        check_tensor("change", change, torch.float32, drafts, device)
        check_tensor("settled", settled, torch.int64, (batch,), device)
    for name, column in (("a", a), ("b", b), ("sigma", sigma)):
        check_tensor(name, column, torch.float32, (batch, width), device)
    for name, value in (("first", first), ("end", end)):
        check_integer(name, value, -(2**63))
    if not 0 <= first <= end < width:
        raise ValueError(
            f"first and end: expected 0 <= first <= end <= {width - 1}, got {first} and {end}"
        )
    rows = (states, means, guesses, noise, intercept, slope, change, settled)
    torch.ops.free.roll_window_(*rows, adds, a, b, sigma, first, end)


def _cpu(*arguments: Any) -> None:
    _C.roll_window(*_capsules(*arguments))


def _cuda(*arguments: Any) -> None:
    _C.cuda_roll_window(*_capsules(*arguments), stream=stream_of(arguments[0]))


def _capsules(*arguments: Any) -> tuple[Any, ...]:
    """As the compiled core takes them."""
    *rows, adds, a, b, sigma, first, end = arguments
    given = [None if tensor is None else to_dlpack(tensor) for tensor in (*rows, a, b, sigma)]
    return (adds, first, end, *given)


def _fake(*arguments: Any) -> None:
    """Nothing is returned."""


register(f"roll_window_({_ROLL}) -> ()", _cpu, _cuda, reference.roll_window_, _fake)
