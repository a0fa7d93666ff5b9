"""Rolling a window of states forward from guesses."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.utils.dlpack import to_dlpack

# After torch, so that one OpenMP runtime serves both.
from free import _C, reference
from free.ops.register import check_tensor, register, stream_of

__all__ = ["Rolled", "roll_window"]

_ROLL = "Tensor x, Tensor guess, Tensor noise, Tensor a, Tensor b, Tensor sigma"


class Rolled(NamedTuple):
    """A window of states, and the means that they were drawn around.

    Attributes
    ----------
    states : Tensor, shape [B, P + 1, ...], float32
        ``x`` and the ``P`` states after it.
    means : Tensor, shape [B, P, ...], float32
        The mean of each transition.
    """

    states: Tensor
    means: Tensor


def roll_window(
    x: Tensor, guess: Tensor, noise: Tensor, a: Tensor, b: Tensor, sigma: Tensor
) -> Rolled:
    """Roll a window of states forward from guesses.

    With ``x_0 = x`` and ``j = 0 .. P-1``,

        mean_j  = a_j * x_j + b_j * guess_j
        x_{j+1} = mean_j + sigma_j * noise_j

    ``guess`` stands for whatever the network predicts that a transition's mean is affine in, with
    the coefficients that belong to it: eps, or the predicted image ``x0``.

    Parameters
    ----------
    x : Tensor, shape [B, ...], float32
        The state that the window starts from.
    guess : Tensor, shape [B, P, ...], float32
        For transitions ``0 .. P-1``. At least one axis follows ``P``. Only ``P`` may be 0: then the
        window is ``x`` alone.
    noise : Tensor, shape [B, P, ...], float32
        N(0, I).
    a, b, sigma : Tensor, shape [B, P], float32
        The transitions' coefficients.

    Returns
    -------
    Rolled

    Raises
    ------
    TypeError
        For an argument that is no tensor, or a tensor of another dtype.
    ValueError
        For shapes that do not match or are empty, non-contiguous tensors, different devices.

    Notes
    -----
    Values are not looked at: a NaN spreads to the later states of its own element and no further.
    The result for a sample depends neither on its batch nor on threads nor on the instruction set.
    """
    _check_roll(x, guess, noise, a, b, sigma)
    return Rolled(*torch.ops.free.roll_window(x, guess, noise, a, b, sigma))


def _check_roll(
    x: Tensor, guess: Tensor, noise: Tensor, a: Tensor, b: Tensor, sigma: Tensor
) -> None:
    check_tensor("guess", guess, torch.float32)
    shape = guess.shape
    if len(shape) < 3 or shape[0] == 0 or 0 in shape[2:]:
        raise ValueError(
            f"guess: expected shape [B, P, ...] where only P may be 0, got {list(shape)}"
        )
    batch, steps, *sample = shape
    device = guess.device
    check_tensor("x", x, torch.float32, (batch, *sample), device)
    check_tensor("noise", noise, torch.float32, shape, device)
    for name, coefficient in (("a", a), ("b", b), ("sigma", sigma)):
        check_tensor(name, coefficient, torch.float32, (batch, steps), device)


def _cpu(*inputs: Tensor) -> Rolled:
    rolled = _fake(*inputs)
    _C.roll_window(*map(to_dlpack, inputs + rolled))
    return rolled


def _cuda(*inputs: Tensor) -> Rolled:
    rolled = _fake(*inputs)
    _C.cuda_roll_window(*map(to_dlpack, inputs + rolled), stream=stream_of(inputs[0]))
    return rolled


def _fake(x: Tensor, guess: Tensor, noise: Tensor, a: Tensor, b: Tensor, sigma: Tensor) -> Rolled:
    batch, steps, *sample = guess.shape
    return Rolled(guess.new_empty((batch, steps + 1, *sample)), torch.empty_like(guess))


register(
    f"roll_window({_ROLL}) -> (Tensor, Tensor)",
    _cpu,
    _cuda,
    reference.roll_window,
    _fake,
)
