"""What makes a window: its noise, first guesses from the teacher's last call, and rolling."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from free.reference.philox import philox_normal, philox_uniform

__all__ = [
    "COEFFICIENTS",
    "DRAFTER",
    "GUIDED",
    "LARGEST_RESPONSE",
    "RESPONSE",
    "REUSE",
    "SOURCES",
    "FirstGuesses",
    "WindowNoise",
    "first_guesses",
    "roll_transition",
    "roll_window_",
    "window_noise",
]

#: Where a run's first guesses come from; ``Source`` of ``csrc/include/free/guess.h``.
SOURCES = ("response", "reuse", "drafter")

RESPONSE, REUSE, DRAFTER = range(3)

#: Of the columns of a schedule; ``Column`` of ``csrc/include/free/roll.h``.
COEFFICIENTS = LARGEST_RESPONSE = 6
GUIDED = 7


class WindowNoise(NamedTuple):
    """What a window draws, float32.

    Attributes
    ----------
    noise : Tensor, shape [B, W - 1, ...]
        Standard normals of the drafts.
    uniforms : Tensor, shape [B, W - 1]
        In [0, 1), of the decisions about them.
    last : Tensor, shape [B, ...]
        Standard normals of transition ``length - 1``, which is sampled from the target if every
        draft stands.
    wanted : Tensor, shape [B], int64, in ``0 .. W``
        Rows of each window: those asked for, or the nearest number there is.
    drafted : Tensor, shape [B], int64
        Drafts of each window: ``length - 1``.
    length : Tensor, shape [B], int32, in ``1 .. W``
        Rows, at least 1.
    """

    noise: Tensor
    uniforms: Tensor
    last: Tensor
    wanted: Tensor
    drafted: Tensor
    length: Tensor


def window_noise(
    seeds: Tensor,
    k: Tensor,
    rounds: Tensor | None,
    widths: Tensor | None,
    like: Tensor,
    *,
    width: int,
    steps: int,
    purpose: int,
    decision: int,
) -> WindowNoise:
    """The numbers of :func:`philox_normal` and :func:`philox_uniform` for transitions
    ``k .. k + width - 1`` of each sample.

    Parameters
    ----------
    seeds, k : Tensor, shape [B], int64
        Keys, and where the windows begin, ``0 .. 2**32 - width``.
    rounds : Tensor or None, shape [B], int64
        Which of a transition's numbers, ``0 .. 2**32 - 1``; None for the first of all.
    widths : Tensor or None, shape [B], int64
        Rows that are asked for; None for ``width`` of each.
    like : Tensor, shape [B, ...], float32
        Has a state's shape; at least one axis follows B, and none is empty.
    width : int
        W, at least 1.
    steps : int
        Transitions of the schedule, at least 1: no window goes beyond.
    purpose, decision : int
        Last words of the counters of normals and uniforms (:class:`free.rounds.noise.Purpose`).

    Raises
    ------
    TypeError, ValueError
        On the CPU also for a ``k``, as ``transition``, or ``rounds``, as ``round``, out of range.
        On CUDA values are not looked at.
    """
    seed = seeds.repeat_interleave(width)
    transition = (k[:, None] + torch.arange(width, device=k.device)).flatten()
    rounds = torch.zeros_like(k) if rounds is None else rounds
    round_ = rounds.repeat_interleave(width)
    size = math.prod(like.shape[1:])
    noise = philox_normal(seed, transition, round_, purpose, size).view(
        len(k), width, *like.shape[1:]
    )
    uniforms = philox_uniform(seed, transition, round_, decision, 1).view(-1, width)
    left = (steps - k.clamp(0, steps)).clamp(max=width)
    wanted = left if widths is None else torch.minimum(widths, left).clamp(min=0)
    length = wanted.clamp(min=1)
    last = noise[torch.arange(len(k), device=k.device), length - 1]
    drafts, uniforms = noise[:, :-1].contiguous(), uniforms[:, :-1].contiguous()
    return WindowNoise(drafts, uniforms, last, wanted, length - 1, length.int())


class FirstGuesses(NamedTuple):
    """A window of P drafts, W = P + 1.

    Entry ``i`` of ``states`` and ``guesses`` is the state before transition ``k + i``, and the
    guess of the transition that led to it. Of a window that is still to be rolled, only entry 0 is
    written.

    Attributes
    ----------
    states : Tensor, shape [B, W, ...], float32
    means : Tensor, shape [B, P, ...], float32
        Of transitions ``k + i``; of a window that is still to be rolled, none is written.
    guesses : Tensor, shape [B, W, ...], float32
    mean_before : Tensor, shape [B, ...], float32
        Of the transition just made.
    intercept, slope : Tensor, shape [B, P, ...] and [B, P], float32
        The guess of transition ``k + i`` at a state x is ``intercept + slope x``.
    settled : Tensor, shape [B], int64
        For how many transitions that stands; the others are the drafter's.
    at : Tensor, shape [B, W], int64
        Transitions ``k + i``, within the schedule.
    coefficients : Tensor, shape [6, B, W], float32
        The first columns there: ``a``, ``b``, ``c``, ``sigma``, ``p`` and ``q``.
    """

    states: Tensor
    means: Tensor
    guesses: Tensor
    mean_before: Tensor
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
    *,
    source: int,
    dot: Tensor,
    square: Tensor,
    columns: Tensor,
    drafts: int,
    noise: Tensor | None = None,
    clip: float | None = None,
) -> FirstGuesses:
    """Begin windows from what the teacher said in its last call, and roll them forward.

    A transition that it has seen at a discarded state ``x_old`` is guessed to be what it said
    there, plus, where the source is the response, ``(x - x_old) dot / square``, at least 0 times
    and at most as often as ``columns[6]`` says. Others are guessed to be the last it has seen.
    The mean of the transition just made lacks what the one before it added: nobody knows that
    any more.

    Parameters
    ----------
    x : Tensor, shape [B, ...], float32
        Current states. At least one axis follows B, and none is empty.
    k : Tensor, shape [B], int64
        Their transitions; those beyond the schedule count as its nearest.
    past_x, past_guess : Tensor, shape [R, ...], float32
        States of the call, and what was said of them, as guesses.
    row, known : Tensor, shape [B, V], V >= W, and [B], int64
        As :class:`free.ops.Advanced` has them. The first W = P + 1 rows are used.
    source : int
        Index into :data:`free.reference.draft.SOURCES`.
    dot, square : Tensor, shape [B], float32
        As :class:`free.rounds.state.Response` has them.
    columns : Tensor, shape [8, N], float32
        As :class:`free.schedule.table.Table` has them.
    drafts : int
        P, at least 0.
    noise : Tensor or None, shape [B, P, ...], float32
        N(0, I): with it, the window is rolled from its first guesses, as :func:`roll_window_` does.
    clip : float or None
        The largest guess there, >= 0; None for no limit.

    Raises
    ------
    TypeError, ValueError
        On the CPU also for a ``row`` that is not in ``0 .. R - 1``. On CUDA the nearest that is
        stands for it. Other values are not looked at.
    """
    width, steps = drafts + 1, columns.shape[1]
    step = torch.arange(width, device=k.device)
    k = k.clamp(-width, steps)  # no sum passes the end of 64 bits, nor does the next difference
    seen = known.clamp(min=1) - 1
    at = (k[:, None] + step).clamp(0, steps - 1)
    made = columns[:, (k - 1).clamp(0, steps - 1)]
    row = row[:, :width]
    guess, x_old = past_guess[row], past_x[row]
    # Entry 0 is the transition just made; what follows is not rolled yet.
    states, means, guesses = (torch.zeros_like(rows) for rows in (guess, guess[:, 1:], guess))
    states[:, 0], guesses[:, 0] = x, guess[:, 0]
    mean_before = _like(made[0], x) * x_old[:, 0] + _like(made[1], x) * guess[:, 0]
    coefficients = columns[:, at]
    follows = (dot / square.clamp(min=1e-12)).clamp(min=0.0)[:, None]
    response = torch.minimum(follows, coefficients[LARGEST_RESPONSE])[:, :drafts]
    follow = (step[:drafts] < seen[:, None]) & (source == RESPONSE)
    slope = torch.where(follow, response, 0.0)
    intercept = guess[:, 1:] - _like(slope, x[:, None]) * x_old[:, 1:]
    settled = torch.zeros_like(known) if source == DRAFTER else seen
    coefficients = coefficients[:COEFFICIENTS].contiguous()
    if noise is not None:
        roll_window_(
            states,
            means,
            guesses,
            noise,
            intercept,
            slope,
            change=None,
            settled=None,
            says="guess",
            coefficients=coefficients,
            clip=clip,
            first=0,
            end=drafts,
        )
    return FirstGuesses(
        states, means, guesses, mean_before, intercept, slope, settled, at, coefficients
    )


def roll_window_(
    states: Tensor,
    means: Tensor,
    guesses: Tensor,
    noise: Tensor,
    intercept: Tensor,
    slope: Tensor,
    *,
    change: Tensor | None,
    settled: Tensor | None,
    says: str,
    coefficients: Tensor,
    clip: float | None = None,
    first: int,
    end: int,
) -> None:
    """Roll a window of states forward from guesses, in place.

    For transitions ``j = first .. end - 1`` of a window of P,

        guess_{j+1} = intercept_j + slope_j x_j    where j < settled, or all without a change
                      else, of what the drafter says,
                      change_j                     if that is the guess
                      change_j + guess_j           if it is a change
                      p_j x + q_j change_j         if it is what the network predicts at the state
                                                   x that entry j held before this
                      and never beyond -clip .. clip
        mean_j      = a_j x_j + b_j guess_{j+1} + c_j guess_j
        x_{j+1}     = mean_j + sigma_j noise_j

    A guess stands for the predicted image ``x0``, or, where a schedule does not say how that
    follows, for whatever the network predicts.

    Parameters
    ----------
    states, guesses : Tensor, shape [B, P + 1, ...], float32
        Entry ``j`` is read as of the transition before, entries ``first + 1 .. end`` are written.
        At least one axis follows P; only P may be 0.
    means : Tensor, shape [B, P, ...], float32
        Entries ``first .. end - 1`` are written.
    noise, intercept : Tensor, shape [B, P, ...], float32
        The noise is N(0, I).
    slope : Tensor, shape [B, P], float32
    change : Tensor or None, shape [B, P, ...], float32
        What the drafter says.
    settled : Tensor or None, shape [B], int64
        With ``change``, how many transitions it says nothing of.
    says : {"guess", "change", "prediction"}
        What the drafter says; changes add up along the window.
    coefficients : Tensor, shape [6, B, P + 1], float32
        ``a``, ``b``, ``c``, ``sigma``, ``p`` and ``q`` of the transitions; the last of a window
        are not used.
    clip : float or None
        The largest guess, >= 0; None for no limit.
    first, end : int
        ``0 <= first <= end <= P``.

    Raises
    ------
    TypeError, ValueError
        For tensors as in :func:`free.ops.verify_window`; ValueError also for a change without
        settled, a span that is not in the window, and ``states``, ``means`` or ``guesses`` that
        share memory with another argument.

    Notes
    -----
    Values are not looked at: a NaN spreads to the later states of its own element and no further.
    The result for a sample depends neither on its batch nor on threads nor on the instruction set.
    """
    a, b, c, sigma, p, q = coefficients.unbind()
    if change is not None and says == "prediction":
        drafts = change.shape[1]
        asked = states[:, :drafts]
        change = _like(p[:, :drafts], change) * asked + _like(q[:, :drafts], change) * change
    for j in range(first, end):
        states[:, j + 1], means[:, j], guesses[:, j + 1] = roll_transition(
            states[:, j],
            guesses[:, j],
            noise[:, j],
            intercept=intercept[:, j],
            slope=slope[:, j],
            change=None if change is None else change[:, j],
            stands=None if settled is None else j < settled,
            adds=says == "change",
            a=a[:, j],
            b=b[:, j],
            c=c[:, j],
            sigma=sigma[:, j],
            clip=clip,
        )


def roll_transition(
    x: Tensor,
    guess: Tensor,
    noise: Tensor,
    *,
    intercept: Tensor,
    slope: Tensor,
    change: Tensor | None,
    stands: Tensor | None,
    adds: bool,
    a: Tensor,
    b: Tensor,
    sigma: Tensor,
    c: Tensor | None = None,
    clip: float | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Make one transition of a window from a guess. Writes to nothing, and can be traced.

    States ``x``, ``noise`` and ``intercept`` are [B, ...], ``guess [B, ...]`` is that of the
    transition before; ``slope``, ``a``, ``b``, ``c`` and ``sigma`` are [B]; ``change`` is what the
    drafter says: the guess, or what it ``adds`` to the one before. Where ``stands [B]``, the first
    guess stands whatever the drafter answers; None with ``change`` only. A ``c`` of None is 0.

    Returned are the state where the transition leads, and its own mean and guess.
    """
    first, last = intercept + _like(slope, x) * x, guess
    if change is not None and stands is not None:
        guess = torch.where(_like(stands, x), first, last + change if adds else change)
    else:
        guess = first
    if clip is not None:
        guess = guess.clamp(-clip, clip)
    mean = _like(a, x) * x + _like(b, x) * guess
    if c is not None:
        c = _like(c, x)
        mean = torch.where(c == 0, mean, mean + c * last)
    return mean + _like(sigma, x) * noise, mean, guess


def _like(column: Tensor, states: Tensor) -> Tensor:
    """``column``, [B] or [B, P], with axes to broadcast over ``states``."""
    return column.view(*column.shape, *[1] * (states.dim() - column.dim()))
