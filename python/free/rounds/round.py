"""One round: draft, ask the teacher, verify, keep.

A round is a function of tensors. With :class:`free.rounds.row_selection.EveryRow` nothing in it looks at a value,
so that :mod:`free.sampling.cuda_graphs` can capture it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import AbstractContextManager

import torch
from torch import Tensor

from free.drafters.protocol import Drafter
from free.models.output import TeacherOutput, TeacherRows
from free.ops import verify_window
from free.rounds.draft import draft_window
from free.rounds.draft_source import SourceChoice, with_round
from free.rounds.noise import Purpose, normal, window_numbers
from free.rounds.relaxation import Spending
from free.rounds.row_selection import Rows, Span
from free.rounds.state import Round, UnderWay, recycle
from free.rounds.target import Target
from free.schedule.table import Prediction, Table

__all__ = [
    "Phase",
    "Rounds",
    "committed_deltas",
    "plain_step",
]

Phase = Callable[[str], AbstractContextManager[None]]


class Rounds:
    """The rounds of a run.

    Parameters
    ----------
    target : Target
    drafter : Drafter or None
        Which has begun.
    prediction : Prediction
    verifier : str
    recycle : bool or str
        As of the sampler.
    width : int
        Rows of a window, at most.
    spending : Spending or None
        The relaxation.
    rows : Rows
        Which rows of a window the networks are asked about.
    phase : callable
        ``phase(name)`` is a context around each phase; :meth:`free.rounds.report.Recorder.phase`.
    """

    def __init__(
        self,
        target: Target,
        drafter: Drafter | None,
        prediction: Prediction,
        verifier: str,
        recycle: bool | str,
        width: int,
        spending: Spending | None,
        rows: Rows,
        phase: Phase,
    ) -> None:
        # Else drafts would take its eps for images: right, and hardly ever accepted.
        assert width == 1 or target.images == (prediction.signal is not None)
        self.target, self.drafter, self.prediction = target, drafter, prediction
        self.verifier, self.width, self.rows = verifier, width, rows
        self.spending, self.phase = spending, phase
        self.source = SourceChoice(recycle)
        self.recycles = recycle is not False and width > 1
        # With recycling a transition keeps its noise; else each round draws anew.
        self._redraw = not self.recycles and width > 1

    def transition(self, at: UnderWay) -> tuple[UnderWay, TeacherRows, Tensor]:
        """A transition of every sample without drafts: the samples afterwards, with the ``past``
        before, the teacher's call, and what that says as a guess.
        """
        noises = at.rounds if self._redraw else torch.zeros_like(at.k)
        table = self.prediction.table
        step = (at.k, at.y, at.seeds, noises, at.samples, self.rows, self.phase)
        x, out, guess = plain_step(self.target, table, at.x, *step)
        now = at._replace(x=x, k=at.k + 1, rounds=at.rounds + 1)
        return now, TeacherRows(*out, at.x, at.k), guess

    def plain(self, at: UnderWay) -> Round:
        """The same as a round."""
        one = torch.ones_like(at.k, dtype=torch.int32)
        return Round(*self.transition(at), one, one, one - 1)

    def speculative(
        self, at: UnderWay, length: Tensor, W: int, sweeps: int | None, learns: bool = False
    ) -> Round:
        """Windows of ``length [B]`` int64 rows, ``1 .. W``. Of a sample with 0 rows ``k`` stays,
        and ``x`` is not to be used: it goes through the motions of one row, unlooked at.

        ``learns`` asks for ``deltas``. Needs a drafter and a ``past``.
        """
        phase, table, prediction = self.phase, self.prediction.table, self.prediction
        x, k, past = at.x, at.k, at.past
        assert past is not None
        assert self.drafter is not None
        with phase("bookkeeping"):
            wanted, length = length, length.clamp(min=1).int()
            noises = at.rounds if self._redraw else None
            z, u, fresh = window_numbers(at.seeds, k, noises, length, W, x.shape[1:])
        with phase("draft"):
            source, compared = self.source.of(at.sums), (self.source.compares, self.source.corrects)
            window = (self.drafter, prediction, x, k, at.y, past, z, wanted, sweeps)
            draft = draft_window(*window, source, at.sums, *compared, at.samples, self.rows)
        with phase("teacher"):
            seen = self.rows.of(None, wanted, 0, W)
            x_rows, k_rows = seen.take(draft.states), seen.take(draft.at)
            out, row_means, guess = self.target(x_rows, k_rows, seen.each(at.y))
            named = (out.eps, "teacher", k_rows, seen, at.samples, None, wanted)
            self.rows.require_finite(*named)
        with phase("verify"):
            means = seen.windows(row_means, len(k), W)
            # The target's own, whatever the drafts took; where no row is real, any will do.
            sigma = seen.put(table.sigma_at(k_rows, x_rows), draft.sigma)
            judged = (draft.states, draft.means, means, sigma, length, u, fresh)
            if self.spending is None:
                x, advance, accepted, _ = verify_window(*judged, self.verifier)
            else:
                verified = self.spending.verify(judged, seen, k_rows, out.variance, at.samples)
                x, advance, accepted = verified
        with phase("bookkeeping"):
            now = at._replace(x=x, k=k + advance.minimum(wanted), rounds=at.rounds + 1)
            deltas = None
            if learns:
                deltas = committed_deltas(draft.means, means, sigma, length, advance)
            if self.source.learns:
                said = seen.windows(guess, len(k), W)
                told = (at.sums, draft, prediction, past, said, length, advance)
                now = now._replace(sums=with_round(*told))
        rows = TeacherRows(*out, x_rows, k_rows)
        return Round(now, rows, guess, length, advance, accepted, draft.calls, deltas)

    def remember(self, made: Round, stride: int | None = None) -> UnderWay:
        """The samples after a round, with what their next windows may know of it.

        ``stride`` is how many rows lie between a sample's first and the next one's; None where
        there are no others than its ``length``.
        """
        sizes = (made.length, made.advance, self.width, self.recycles, stride)
        return made.now._replace(past=recycle(made.rows, made.guess, *sizes))


def plain_step(
    target: Target,
    table: Table,
    x: Tensor,
    k: Tensor,
    y: Tensor,
    seeds: Tensor,
    noises: Tensor,
    samples: Tensor,
    rows: Rows,
    phase: Phase,
) -> tuple[Tensor, TeacherOutput, Tensor]:
    """One transition of every sample, without drafts.

    Parameters
    ----------
    target : Target
    table : Table
    x : Tensor, shape [B, ...]
    k : Tensor, shape [B], int64
        The transitions.
    y, seeds : Tensor, shape [B], int64
    noises : Tensor, shape [B], int64
        Which of a transition's noises; 0 where it has only one.
    samples : Tensor, shape [B], int64
        What errors call the samples.
    rows : Rows
        Who looks whether the teacher's output is finite.
    phase : callable
        As of :class:`Rounds`.

    Returns
    -------
    x : Tensor, shape [B, ...]
        The next states.
    out : TeacherOutput
        At the states before.
    guess : Tensor, shape [B, ...]
        What it says, as drafts guess it.

    Raises
    ------
    FloatingPointError
        If the teacher returns NaN or inf; names the step and the samples.
    """
    with phase("teacher"):
        out, mean, guess = target(x, k, y)
        rows.require_finite(out.eps, "teacher", k, Span(len(k), 0, 1, k.device), samples)
    with phase("bookkeeping"):
        noise = normal(seeds, k, noises, Purpose.TRANSITION, x.shape[1:])
        sigma = table.sigma_at(k, x).view([-1] + [1] * (x.dim() - 1))
        return torch.addcmul(mean, sigma, noise), out, guess


def committed_deltas(
    draft_means: Tensor, target_means: Tensor, sigma: Tensor, length: Tensor, advance: Tensor
) -> Tensor:
    """``|m_hat - m| / sigma`` of the drafted transitions that a round has made.

    What is behind a rejection is left out: it depends on noise that is still to be used.

    Parameters
    ----------
    draft_means, target_means, sigma, length
        As of :func:`free.ops.verify_window`.
    advance : Tensor, shape [B], int32
        As it returned.

    Returns
    -------
    Tensor, shape [B, W - 1]
        NaN of the others.
    """
    drafts = draft_means.shape[1]
    shift = (draft_means - target_means[:, :drafts]).flatten(2).norm(dim=2)
    made = torch.arange(drafts, device=sigma.device) < torch.minimum(advance, length - 1)[:, None]
    return torch.where(made, shift / sigma[:, :drafts], math.nan)
