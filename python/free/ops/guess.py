"""A window before the drafter is asked: what the teacher's last call says of it."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils.dlpack import to_dlpack

# After torch, so that one OpenMP runtime serves both.
from free import _C, reference
from free.ops.register import check_integer, check_tensor, register, stream_of

__all__ = ["FirstGuesses", "first_guesses"]

_GUESSES = (
    "Tensor x, Tensor k, Tensor past_x, Tensor past_guess, Tensor row, Tensor known, "
    "Tensor source, Tensor dot, Tensor square, Tensor columns, SymInt drafts"
)


class FirstGuesses(NamedTuple):
    """A window of P drafts that is still to be rolled, W = P + 1.

    Entry ``i`` of ``states``, ``means`` and ``guesses`` is the state before transition ``k + i``,
    and mean and guess of the transition that led to it. Only entry 0 is written.

    Attributes
    ----------
    states, means, guesses : Tensor, shape [B, W, ...], float32
    intercept : Tensor, shape [B, P, ...], float32
    slope : Tensor, shape [B, P], float32
        The guess of transition ``k + i`` at a state x is ``intercept + slope x``.
    settled : Tensor, shape [B], int64
        For how many transitions that stands; the others are the drafter's.
    at : Tensor, shape [B, W], int64
        Transitions ``k + i``, within the schedule.
    coefficients : Tensor, shape [3, B, W], float32
        ``a``, ``b`` and ``sigma`` there.
    """

    states: Tensor
    means: Tensor
    guesses: Tensor
    intercept: Tensor
    slope: Tensor
    settled: Tensor
    at: Tensor
    coefficients: Tensor


def first_guesses(
    x: Tensor,
    k: Tensor,
    past_x: Tensor,
    past_guess: Tensor,
    row: Tensor,
    known: Tensor,
    source: Tensor,
    dot: Tensor,
    square: Tensor,
    columns: Tensor,
    drafts: int,
) -> FirstGuesses:
    """Begin windows from what the teacher said in its last call.

    A transition that it has seen at a discarded state ``x_old`` is guessed to be what it said
    there, plus, where the source is the response, ``(x - x_old) dot / square``, at least 0 times
    and at most as often as ``columns[3]`` says. Others are guessed to be the last it has seen.

    Parameters
    ----------
    x : Tensor, shape [B, ...], float32
        Current states. At least one axis follows B, and none is empty.
    k : Tensor, shape [B], int64
        Their transitions; those beyond the schedule count as its nearest.
    past_x, past_guess : Tensor, shape [R, ...], float32
        States of the call, and what was said of them, as guesses.
    row : Tensor, shape [B, V], int64, V >= W
        As :class:`free.ops.RecycledRows` has it. The first W = P + 1 are used.
    known : Tensor, shape [B], int64
        Likewise.
    source : Tensor, shape [B], int64
        Index into :data:`free.sources.SOURCES`.
    dot, square : Tensor, shape [B], float32
        As :class:`free.sources.Evidence` has them.
    columns : Tensor, shape [4, N], float32
        ``a``, ``b``, ``sigma`` and the largest response of each transition.
    drafts : int
        P, at least 0.

    Returns
    -------
    FirstGuesses

    Raises
    ------
    TypeError, ValueError
        Naming the argument, what was expected and what came; on the CPU also for a ``row`` that is
        not in ``0 .. R - 1``. On CUDA the nearest that is stands for it. Other values are not
        looked at.
    """
    check_tensor("x", x, torch.float32)
    if x.dim() < 2 or x.numel() == 0:
        raise ValueError(f"x: expected a non-empty shape [B, ...], got {list(x.shape)}")
    (batch, *sample), device = x.shape, x.device
    check_integer("drafts", drafts, 0)
    check_tensor("past_x", past_x, torch.float32, device=device)
    if list(past_x.shape[1:]) != sample or len(past_x) == 0:
        expected = ", ".join(map(str, ("R", *sample)))
        raise ValueError(f"past_x: expected shape [{expected}], got {list(past_x.shape)}")
    check_tensor("past_guess", past_guess, torch.float32, past_x.shape, device)
    check_tensor("row", row, torch.int64, device=device)
    if row.dim() != 2 or len(row) != batch or row.shape[1] <= drafts:
        raise ValueError(
            f"row: expected shape [{batch}, at least {drafts + 1}], got {list(row.shape)}"
        )
    for name, column in (("k", k), ("known", known), ("source", source)):
        check_tensor(name, column, torch.int64, (batch,), device)
    for name, column in (("dot", dot), ("square", square)):
        check_tensor(name, column, torch.float32, (batch,), device)
    check_tensor("columns", columns, torch.float32, device=device)
    if columns.dim() != 2 or columns.shape[0] != 4 or columns.shape[1] == 0:
        raise ValueError(f"columns: expected shape [4, N], got {list(columns.shape)}")
    given = (x, k, past_x, past_guess, row, known, source, dot, square, columns, drafts)
    return FirstGuesses(*torch.ops.free.first_guesses(*given))


def _cpu(*arguments: Any) -> FirstGuesses:
    *inputs, _ = arguments
    guesses = _fake(*arguments)
    _C.first_guesses(*map(to_dlpack, (*inputs, *guesses)))
    return guesses


def _cuda(*arguments: Any) -> FirstGuesses:
    *inputs, _ = arguments
    guesses = _fake(*arguments)
    _C.cuda_first_guesses(*map(to_dlpack, (*inputs, *guesses)), stream=stream_of(inputs[0]))
    return guesses


def _fake(x: Tensor, k: Tensor, *rest: Any) -> FirstGuesses:
    drafts = rest[-1]
    batch, *sample = x.shape
    window = (batch, drafts + 1, *sample)
    return FirstGuesses(
        x.new_empty(window),
        x.new_empty(window),
        x.new_empty(window),
        x.new_empty((batch, drafts, *sample)),
        x.new_empty((batch, drafts)),
        torch.empty_like(k),
        k.new_empty((batch, drafts + 1)),
        x.new_empty((3, batch, drafts + 1)),
    )


register(
    f"first_guesses({_GUESSES}) -> "
    "(Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor)",
    _cpu,
    _cuda,
    reference.first_guesses,
    _fake,
)
