"""Twins of what makes a window: its noise, first guesses, rolling, and what it tells."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from free.reference.philox import philox_normal, philox_uniform

if TYPE_CHECKING:
    pass

__all__ = [
    "CONTROL_VARIATE",
    "DRAFTER",
    "RESPONSE",
    "REUSE",
    "SOURCES",
    "first_guesses",
    "roll_transition",
    "roll_window_",
    "window_noise",
]

SOURCES = ("response", "control_variate", "reuse", "drafter")

RESPONSE, CONTROL_VARIATE, REUSE, DRAFTER = range(4)

#: ``draw(seeds [R], transition [R], round [R], purpose, size) -> [R, size]``.
Draw = Callable[[Tensor, Tensor, Tensor, int, int], Tensor]

#: Places in :data:`free.reference.draft.SOURCES`.
_RESPONSE, _DRAFTER = 0, 3


def window_noise(
    seeds: Tensor,
    k: Tensor,
    rounds: Tensor | None,
    length: Tensor,
    width: int,
    size: int,
    purpose: int,
    decision: int,
    normal: Draw = philox_normal,
    uniform: Draw = philox_uniform,
) -> tuple[Tensor, Tensor, Tensor]:
    """Noises and uniforms of a window's drafts, and the noise of its last transition.

    Parameters and results are those of :func:`free.ops.window_noise`; ``normal`` and ``uniform``
    draw the numbers of rows.
    """
    at = (k[:, None] + torch.arange(width, device=k.device)).flatten()
    rounds = torch.zeros_like(k) if rounds is None else rounds
    of = (seeds.repeat_interleave(width), at, rounds.repeat_interleave(width))
    noise = normal(*of, purpose, size).view(-1, width, size)
    uniforms = uniform(*of, decision, 1).view(-1, width)
    final = length.long().clamp(1, width) - 1
    last = noise[torch.arange(len(k), device=k.device), final]
    return noise[:, :-1].contiguous(), uniforms[:, :-1].contiguous(), last


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
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """A window before the drafter is asked.

    Parameters and results are those of :func:`free.ops.first_guesses`.
    """
    width, steps = drafts + 1, columns.shape[1]
    step = torch.arange(width, device=k.device)
    at = (k[:, None] + step).clamp(0, steps - 1)
    made = columns[:, (k - 1).clamp(0, steps - 1)]
    row = row[:, :width]
    guess, x_old = past_guess[row], past_x[row]
    # Entry 0 is the transition just made; what follows is not rolled yet.
    states, means, guesses = (torch.zeros_like(guess) for _ in range(3))
    states[:, 0], guesses[:, 0] = x, guess[:, 0]
    means[:, 0] = _like(made[0], x) * x_old[:, 0] + _like(made[1], x) * guess[:, 0]
    coefficients = columns[:, at]
    follows = (dot / square.clamp(min=1e-12)).clamp(min=0.0)[:, None]
    response = torch.minimum(follows, coefficients[3])[:, :drafts]
    follow = (step[:drafts] < known[:, None] - 1) & (source == _RESPONSE)[:, None]
    slope = torch.where(follow, response, 0.0)
    intercept = guess[:, 1:] - _like(slope, x[:, None]) * x_old[:, 1:]
    settled = torch.where(source == _DRAFTER, 0, known - 1)
    return (
        states,
        means,
        guesses,
        intercept,
        slope,
        settled,
        at,
        coefficients[:3].contiguous(),
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

    Parameters and results are those of :func:`free.ops.roll_window_`.
    """
    for j in range(first, end):
        states[:, j + 1], means[:, j + 1], guesses[:, j + 1] = roll_transition(
            states[:, j],
            guesses[:, j],
            noise[:, j],
            intercept=intercept[:, j],
            slope=slope[:, j],
            change=None if change is None else change[:, j],
            stands=None if settled is None else j < settled,
            adds=adds,
            a=a[:, j],
            b=b[:, j],
            sigma=sigma[:, j],
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
) -> tuple[Tensor, Tensor, Tensor]:
    """Make one transition of a window from a guess. Writes to nothing, and can be traced.

    Parameters
    ----------
    x : Tensor, shape [B, ...]
        Where the transition starts.
    guess : Tensor, shape [B, ...]
        That of the transition before, to which a change is added.
    noise : Tensor, shape [B, ...]
    intercept : Tensor, shape [B, ...]
    slope : Tensor, shape [B]
        The first guess is ``intercept + slope x``.
    change : Tensor, shape [B, ...], or None
        The drafter's answer: a change of the guess if it ``adds``, else the guess itself.
    stands : Tensor, shape [B], bool, or None
        Where the first guess stands whatever the drafter answers; None with ``change`` only.
    adds : bool
    a, b, sigma : Tensor, shape [B]

    Returns
    -------
    state, mean, guess : Tensor, shape [B, ...]
        Where the transition leads, and its own mean and guess.
    """
    first = intercept + _like(slope, x) * x
    if change is not None and stands is not None:
        guess = torch.where(_like(stands, x), first, guess + change if adds else change)
    else:
        guess = first
    mean = _like(a, x) * x + _like(b, x) * guess
    return mean + _like(sigma, x) * noise, mean, guess


def _like(column: Tensor, states: Tensor) -> Tensor:
    """``column``, [B] or [B, P], with axes to broadcast over ``states``."""
    return column.view(*column.shape, *[1] * (states.dim() - column.dim()))
