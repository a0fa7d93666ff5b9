"""The records that pass from one step of a round to the next.

This room knows no network and no kernel but the one that shifts rows.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from free.models.output import TeacherRows
from free.ops import recycled_rows
from free.reference.draft import SOURCES

__all__ = [
    "Draft",
    "Evidence",
    "Recycled",
    "Round",
    "UnderWay",
    "recycle",
]


class Draft(NamedTuple):
    """A drafted window.

    Attributes
    ----------
    states : Tensor, shape [B, W, ...]
        The current state and the drafted ones.
    means : Tensor, shape [B, W - 1, ...]
        ``m_hat``: the means they were drawn around.
    at : Tensor, shape [B, W], int64
        The transitions; beyond the schedule, its last.
    sigma : Tensor, shape [B, W], float32
        Of the drafts' transitions; the last is the table's.
    candidates : Tensor, shape [4, B, W - 1, ...], or None
        What each source (:mod:`free.rounds.draft_source`) guessed for those that the teacher had seen before;
        None unless asked for.
    calls : int
        Of the drafter.
    """

    states: Tensor
    means: Tensor
    at: Tensor
    sigma: Tensor
    candidates: Tensor | None
    calls: int


class UnderWay(NamedTuple):
    """Samples that are being drawn.

    Attributes
    ----------
    samples : Tensor, shape [B], int64
        Their numbers.
    y, seeds : Tensor, shape [B], int64
    x : Tensor, shape [B, ...], float32
    k, rounds : Tensor, shape [B], int64
        Transitions and rounds behind them.
    past : Recycled or None
        The teacher's last call; None before the first.
    sums : Evidence
        How the sources of recycled drafts have done.
    """

    samples: Tensor
    y: Tensor
    seeds: Tensor
    x: Tensor
    k: Tensor
    rounds: Tensor
    past: Recycled | None
    sums: Evidence

    @classmethod
    def begin(cls, y: Tensor, seeds: Tensor, x: Tensor) -> UnderWay:
        """All samples of a run, from their initial noise."""
        samples = torch.arange(len(y), device=x.device)
        zero = torch.zeros_like(samples)
        sums = Evidence.none(len(y), x.device)
        return cls(samples, y, seeds, x, zero, zero.clone(), None, sums)

    def keep(self, these: Tensor) -> UnderWay:
        """Some of them: a mask [B], or places."""
        return UnderWay(
            self.samples[these],
            self.y[these],
            self.seeds[these],
            self.x[these],
            self.k[these],
            self.rounds[these],
            None if self.past is None else self.past.keep(these),
            self.sums.keep(these),
        )


class Round(NamedTuple):
    """What became of a round.

    Attributes
    ----------
    now : UnderWay
        Afterwards; ``past`` is that before.
    rows : TeacherRows
        The teacher's call.
    guess : Tensor, shape [R, ...]
        What it says, as drafts guess it.
    length, advance, accepted : Tensor, shape [B], int32
        Teacher rows of each sample, transitions made, drafts that stand.
    drafter_calls : int
    deltas : Tensor or None, shape [B, W - 1]
        As :func:`free.rounds.round.committed_deltas`.
    """

    now: UnderWay
    rows: TeacherRows
    guess: Tensor
    length: Tensor
    advance: Tensor
    accepted: Tensor
    drafter_calls: int = 0
    deltas: Tensor | None = None


class Evidence(NamedTuple):
    """What rounds tell about the sources: sums over committed transitions seen twice.

    Attributes
    ----------
    rejected : Tensor, shape [B, 4]
        Sums of the probabilities with which each source's drafts are rejected; zero unless the
        sources are compared.
    dot, square : Tensor, shape [B]
        Sums of ``<x - x_old, change of the teacher's prediction>`` and ``|x - x_old|^2``.
    """

    rejected: Tensor
    dot: Tensor
    square: Tensor

    @classmethod
    def none(cls, samples: int, device: torch.device) -> Evidence:
        """Of nothing yet."""
        zero = torch.zeros(samples, device=device)
        return cls(zero[:, None].repeat(1, len(SOURCES)), zero, zero.clone())

    def keep(self, samples: Tensor) -> Evidence:
        """Of these samples only: a mask [B], or places."""
        return Evidence(*(part[samples] for part in self))

    def response(self) -> Tensor:
        """By how much the teacher's prediction follows its state, [B]; 0 at first."""
        return self.dot / self.square.clamp(min=1e-12)


class Recycled(NamedTuple):
    """The teacher's last call, as seen from each sample's next window.

    Attributes
    ----------
    rows : TeacherRows
        All rows of the call.
    guess : Tensor, shape [R, ...]
        What was predicted there, as drafts guess it (:class:`free.schedule.table.Prediction`).
    row : Tensor, shape [B, W], int64
        Entry ``i`` of a sample with next transition ``k``: its row of transition ``k - 1 + i``,
        or its last one where there is none. Entry 0 is the transition just made.
    known : Tensor, shape [B], int64, in ``1 .. W``
        How many entries are of their own transition; the others repeat the last of these.
    """

    rows: TeacherRows
    guess: Tensor
    row: Tensor
    known: Tensor

    @property
    def bytes(self) -> int:
        """Memory of the rows."""
        kept = (*self.rows, self.guess)
        return sum(part.numel() * part.element_size() for part in kept if part is not None)

    def keep(self, samples: Tensor) -> Recycled:
        """Of these samples only: a mask [B], or places."""
        return self._replace(row=self.row[samples], known=self.known[samples])


def recycle(
    rows: TeacherRows,
    guess: Tensor,
    length: Tensor,
    advance: Tensor,
    width: int,
    discarded: bool,
    stride: int | None = None,
) -> Recycled:
    """Shift a teacher call by what each sample advanced.

    Parameters
    ----------
    rows : TeacherRows
        The call; the rows of a sample follow each other, and samples too.
    guess : Tensor, shape [R, ...]
    length, advance : Tensor, shape [B], int32
        Rows of each sample, and transitions made of them, ``1 .. length``.
    width : int
        W of the next window.
    discarded : bool
        Whether rows behind a rejection are kept; otherwise only that of the transition made.
    stride : int or None
        Rows from a sample's first to the next one's; None where that is ``length``.
    """
    return Recycled(rows, guess, *recycled_rows(length, advance, width, discarded, stride))
