"""The records that pass from one step of a round to the next, and how samples join and leave.

This room knows no network and no kernel.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from free.models.output import TeacherRows
from free.rounds.row_selection import Selection
from free.rounds.tensor_tree import join, take


class Recycled(NamedTuple):
    """The teacher's last call, as seen from each sample's next window.

    The teacher saw a whole window; behind a rejection its outputs belong to states that were
    discarded. They are kept: with the noises that belong to the transitions, the next window
    passes close by those states, and what the teacher said there is nearly what it would say
    again. These are the rows of one call, at most ``B W``: eps, state, the guess that they amount
    to, and the feature, ``B W (12 D + bytes(feature))`` bytes in float32 (and the variance
    channels of a network that has them). Moving a row to the front is an index.

    Attributes
    ----------
    rows, guess : TeacherRows, and Tensor of shape [R, ...]
        The call, and what was predicted there, as drafts guess it
        (:class:`free.schedule.table.Table`).
    row : Tensor, shape [B, W], int64
        Entry ``i`` of a sample with next transition ``k``: its row of transition ``k - 1 + i``,
        or its last one where there is none. Entry 0 is the transition just made (of a sample that
        wanted no row, one not made: drafts suffer, not the law).
    known : Tensor, shape [B], int64, in ``0 .. W``
        How many entries are of their own transition; the others repeat the last of these. 0 of a
        sample that the teacher has not seen yet, whose entries mean nothing.
    start : Tensor, shape [R, ...], or None
        What drafts start from, where that is not ``guess`` (:class:`free.rounds.tolerance.Kept`).
    """

    rows: TeacherRows
    guess: Tensor
    row: Tensor
    known: Tensor
    start: Tensor | None = None

    @classmethod
    def nothing(cls, x: Tensor, k: Tensor, width: int) -> Recycled:
        """Before the first call: no rows, for states ``x [B, ...]`` of transitions ``k [B]``."""
        rows = TeacherRows(x[:0], None, None, x[:0], k[:0])
        return cls(rows, x[:0], k.new_zeros(len(k), width), torch.zeros_like(k))

    @property
    def bytes(self) -> int:
        """Memory of the rows."""
        parts = (*self.rows, self.guess, self.start)
        return sum([part.nbytes for part in parts if part is not None])

    @property
    def guesses(self) -> Tensor:
        """What drafts start from, [R, ...]."""
        return self.guess if self.start is None else self.start

    def keep(self, samples: Tensor) -> Recycled:
        """Select samples by a mask [B], or by places; the rows stay, as others may need them."""
        return self._replace(row=self.row[samples], known=self.known[samples])


class Response(NamedTuple):
    """By how much the teacher's prediction follows its state: running sums of a regression.

    ``dot`` and ``square``, [B], sum up ``<x - x_old, change of the teacher's prediction>`` and
    ``|x - x_old|^2`` over *committed* transitions that the teacher has seen twice, and no others:
    what it says behind a rejection depends on noises that are still to be used, so sums over such
    rows would tell the draft of an earlier transition about its own noise.
    """

    dot: Tensor
    square: Tensor

    def slope(self) -> Tensor:
        """The regression's slope, [B]; 0 at first."""
        return self.dot / self.square.clamp(min=1e-12)


class Samples(NamedTuple):
    """Samples that are being drawn: the state of a run, one row each.

    Samples may join and leave between rounds; each has its own step, seed and label.

    Attributes
    ----------
    number : Tensor, shape [B], int64
        What their owner calls them.
    y, seeds : Tensor, shape [B], int64
        Labels and noise seeds.
    x : Tensor, shape [B, ...], float32
        Current states.
    k, rounds : Tensor, shape [B], int64
        Transitions and rounds behind them.
    past, response
        The teacher's last call, and how its predictions have followed its states.
    before : Tensor, shape [B, ...], float32, or None
        Where the schedule has a history, what was guessed of the last transition made (x0): with
        ``x``, the state that the chain is Markov in.
    """

    number: Tensor
    y: Tensor
    seeds: Tensor
    x: Tensor
    k: Tensor
    rounds: Tensor
    past: Recycled
    response: Response
    before: Tensor | None = None

    @classmethod
    def begin(
        cls, y: Tensor, seeds: Tensor, x: Tensor, width: int, history: bool = False
    ) -> Samples:
        """Samples before their first round, numbered ``0 .. B - 1``, from noise ``x [B, ...]``."""
        y, seeds, x = y.contiguous(), seeds.contiguous(), x.contiguous()
        number = torch.arange(len(y), device=x.device)
        zero = torch.zeros_like(number)
        sums = torch.zeros(len(y), dtype=torch.float32, device=x.device)
        past = Recycled.nothing(x, zero, width)
        response = Response(sums, sums.clone())
        before = torch.zeros_like(x) if history else None
        return cls(number, y, seeds, x, zero, zero.clone(), past, response, before)

    def keep(self, samples: Tensor) -> Samples:
        """Select samples by a mask [B], or by places: the others leave."""
        return Samples(**take(self._columns(), samples), past=self.past.keep(samples))

    def join(self, others: Samples) -> Samples:
        """These samples, then ``others`` of the same run, each where it stands.

        The draft of a sample depends on its own rows only, so nobody's image changes.
        """
        rows, new = self.past.rows, others.past.rows
        # Until the teacher has been asked, nobody knows whether it returns features.
        kept = new if not len(rows.k) else rows if not len(new.k) else join(rows, new)
        offset = len(rows.k) if len(new.k) else 0  # without rows, entries mean nothing
        start = self.past.start
        if start is None and others.past.start is not None:
            start = self.past.guess
        past = Recycled(
            kept,
            join(self.past.guess, others.past.guess),
            join(self.past.row, others.past.row + offset),
            join(self.past.known, others.past.known),
            None if start is None else torch.cat([start, others.past.guesses]),
        )
        return Samples(**join(self._columns(), others._columns()), past=past)

    def _columns(self) -> dict[str, Any]:
        """All that has one entry a sample."""
        return {name: part for name, part in self._asdict().items() if name != "past"}


class Draft(NamedTuple):
    """Drafted states, and the means they were drawn around.

    ``states [B, W, ...]`` are the current one and the drafted ones, ``means [B, W - 1, ...]`` the
    latter's ``m_hat``. ``k [B, W]`` are the transitions; beyond the schedule, its last.
    ``sigma [B, W]`` is that of the drafts; None where there are none. The drafter was called
    ``calls`` times.
    """

    states: Tensor
    means: Tensor
    k: Tensor
    sigma: Tensor | None
    calls: int


class Window(NamedTuple):
    """What a round proposes: the rows that the teacher is to be asked about.

    Attributes
    ----------
    x, t, y : Tensor, shape [R, ...], float32, and [R], int64
        States, timesteps and labels for the teacher; under guidance two rows each, with the label
        and without.
    draft, rows : Draft and Selection
        Which rows of the samples' windows these are, without the second ones of guidance.
    states, steps : Tensor, shape [R, ...] and [R], int64
        Their states and transitions, likewise.
    wanted : Tensor, shape [B], int64
        Rows of each sample, ``0 .. W``.
    length : Tensor, shape [B], int32
        Likewise, at least 1: a sample of 0 rows goes through the motions of one.
    uniforms, noise : Tensor, shape [B, W - 1] and [B, ...], float32
        See :func:`free.ops.verify_window`.
    """

    x: Tensor
    t: Tensor
    y: Tensor
    draft: Draft
    rows: Selection
    states: Tensor
    steps: Tensor
    wanted: Tensor
    length: Tensor
    uniforms: Tensor
    noise: Tensor


class Outcome(NamedTuple):
    """What verification made of a window.

    ``x [B, ...]`` are the next states; ``advance [B]``, ``1 .. length``, transitions made, and
    ``accepted [B]`` drafts that stand, int32. ``means [B, W, ...]`` and ``sigma [B, W]`` are the
    target's. ``teacher`` is the teacher's call, guided, and ``guess [R, ...]`` what it says, as
    drafts guess it; ``response`` has what the round tells about it. Within a tolerance the
    window's drafted states are those that follow from it, ``start [R, ...]`` is what the next
    drafts start from, and ``offsets [B, W - 1]``, None of a window of one row, are those of
    :class:`free.rounds.tolerance.Kept`.
    """

    x: Tensor
    advance: Tensor
    accepted: Tensor
    means: Tensor
    sigma: Tensor
    teacher: TeacherRows
    guess: Tensor
    response: Response
    window: Window
    start: Tensor | None = None
    offsets: Tensor | None = None
