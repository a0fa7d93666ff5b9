"""What a teacher call leaves to the next window."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class Advanced(NamedTuple):
    """Where samples are after a round, and rows of its teacher call as seen from their next window.

    Attributes
    ----------
    k, rounds : Tensor, shape [B], int64
        Transitions and rounds behind them.
    row : Tensor, shape [B, W], int64
        Entry ``i`` of a sample: the row of the transition just made and the ``i``-th after it, or
        the sample's last.
    known : Tensor, shape [B], int64, in ``1 .. W``
        How many entries are of their own transition.
    """

    k: Tensor
    rounds: Tensor
    row: Tensor
    known: Tensor


def advance_samples_(
    after: Tensor,
    x: Tensor,
    k: Tensor,
    rounds: Tensor,
    *,
    wanted: Tensor,
    length: Tensor,
    advance: Tensor,
    accepted: Tensor,
    width: int,
    discarded: bool,
    stride: int | None = None,
    log: Tensor | None = None,
) -> Advanced:
    """Count a round, and shift the rows of its teacher call by what each sample advanced.

    Samples that wanted no row stay where they are: their state ``after`` the round becomes ``x``.

    Parameters
    ----------
    after, x : Tensor, shape [B, ...], float32
        States after the round, in place, and before it.
    k, rounds : Tensor, shape [B], int64
        Transitions and rounds before it.
    wanted : Tensor, shape [B], int64
        Rows asked for; a sample advances by no more.
    length, advance, accepted : Tensor, shape [B], int32
        Rows of each sample, transitions made of them, ``1 .. length``, and drafts that stand.
        Values are not looked at.
    width : int
        W of the next window, at least 1.
    discarded : bool
        Whether rows behind a rejection are kept; otherwise only that of the transition made.
    stride : int or None
        Rows from a sample's first to the next one's, at least 1; None where samples follow each
        other without a gap.
    log : Tensor or None, shape [M, 3, B], int64
        Entry ``rounds[0] % M`` becomes ``k``, ``wanted`` and ``accepted``, in place.

    Raises
    ------
    TypeError, ValueError
    """
    done = wanted.view(-1, *[1] * (x.dim() - 1)) < 1
    after.copy_(torch.where(done, x, after))
    if log is not None:
        entry = torch.stack([k, wanted, accepted.long()])
        log.index_copy_(0, rounds[:1] % len(log), entry[None])
    length, advance = length.long(), advance.long()
    made = advance - 1
    last = length - 1 if discarded else made
    if stride is None:
        start = length.cumsum(0) - length
    else:
        start = stride * torch.arange(len(length), device=length.device)
    step = torch.arange(width, device=length.device)
    entry = torch.minimum(made[:, None] + step, last[:, None])
    k_after = k + torch.minimum(advance, wanted)
    return Advanced(k_after, rounds + 1, start[:, None] + entry, last - made + 1)


class ResponseSums(NamedTuple):
    """Sums over transitions that the teacher has seen twice; ``dot``, ``square``: [B], float32."""

    dot: Tensor
    square: Tensor


def response_sums(
    states: Tensor,
    guess: Tensor,
    past_x: Tensor,
    past_guess: Tensor,
    row: Tensor,
    known: Tensor,
    *,
    length: Tensor,
    advance: Tensor,
    dot: Tensor,
    square: Tensor,
    memory: float,
) -> ResponseSums:
    """``memory dot + sum <x - x_old, g - g_old>`` and ``memory square + sum |x - x_old|^2``.

    The sums are over the transitions that were made from a draft and that the teacher had seen
    before: the first ``min(advance, length - 1, known - 1)`` of a window.

    Parameters
    ----------
    states, guess : Tensor, shape [B, W, ...], float32
        States of the window, and what the teacher says of them, as guesses.
    past_x, past_guess : Tensor, shape [R, ...], float32
        Those of its call before.
    row : Tensor, shape [B, V], int64, V >= W
        Entry ``i + 1`` is that call's row of the window's transition ``i``.
    known : Tensor, shape [B], int64
    length, advance : Tensor, shape [B], int32
    dot, square : Tensor, shape [B], float32
    memory : float
        In [0, 1].

    Raises
    ------
    TypeError, ValueError
        On the CPU also for a row that counts and is not there. On CUDA values are not looked at,
        and the nearest row stands in.

    Notes
    -----
    Sums are taken in float64, in an order that depends on nothing but the size of a state.
    """
    drafts = states.shape[1] - 1
    row = row[:, 1 : drafts + 1]
    before, seen = length.clamp(min=1) - 1, known.clamp(min=1) - 1  # none for what is below
    count = torch.minimum(torch.minimum(advance, before), seen)
    counted = torch.arange(drafts, device=row.device) < count[:, None]
    moved = (states[:, :drafts] - past_x[row]).flatten(2).double()
    followed = (guess[:, :drafts] - past_guess[row]).flatten(2).double()
    new_dot, new_square = (
        torch.where(counted, torch.linalg.vecdot(moved, other), 0.0).sum(1)
        for other in (followed, moved)
    )
    dot, square = memory * dot.double() + new_dot, memory * square.double() + new_square
    return ResponseSums(dot.float(), square.float())
