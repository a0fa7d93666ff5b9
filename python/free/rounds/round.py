"""One round in four steps: draft, teacher, verify, advance.

``draft``, ``verify`` and ``advance`` are functions of the samples' state and call no teacher: that
belongs to whoever owns the loop (a sampler, a captured graph, a pipeline, a server). With
:class:`free.rounds.row_selection.EveryRow` nothing in them looks at a value, so that a CUDA graph
can capture them. Who chooses the windows' widths, and what rounds cost, is not known here.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor

from free.drafters.protocol import Drafter
from free.models.output import TeacherOutput, TeacherRows
from free.ops import verify_window
from free.reference.draft import RESPONSE
from free.rounds.draft import draft_window
from free.rounds.draft_source import source_of, updated_response
from free.rounds.noise import Purpose, normal, window_numbers
from free.rounds.relaxation import Spending
from free.rounds.row_selection import RowSelector, Span, WantedRows
from free.rounds.state import Draft, Outcome, Recycled, Samples, Window, recycle
from free.rounds.target import Answer, Target
from free.schedule.table import Prediction

__all__ = ["Phase", "Rounds", "committed_deltas"]

Phase = Callable[[str], AbstractContextManager[None]]


@dataclass(frozen=True, eq=False, kw_only=True)
class Rounds:
    """The steps of a run's rounds.

    ::

        window = rounds.draft(samples, widths, W)
        output = teacher(window.x, window.t, window.y)
        outcome = rounds.verify(samples, window, output)
        samples = rounds.advance(samples, outcome)

    Parameters
    ----------
    target : Target
        How the teacher is guided, and what its answers mean.
    prediction : Prediction
        The schedule, in terms of what drafts guess.
    width : int
        Rows of a window, at most; 1 is the plain sampler.
    drafter : Drafter or None
        Which has begun; None needs a width of 1.
    verifier : str
    recycle : bool or str
        As :class:`free.SpeculativeSampler` takes it.
    spending : Spending or None
        The relaxation.
    rows : RowSelector
        Which rows of a window the networks are asked about.
    phase : callable
        ``phase(name)`` is a context around each phase; :meth:`free.rounds.report.Recorder.phase`.
    """

    target: Target
    prediction: Prediction
    width: int
    drafter: Drafter | None = None
    verifier: str = "reflection"
    recycle: bool | str = False
    spending: Spending | None = None
    rows: RowSelector = WantedRows()
    phase: Phase = lambda name: nullcontext()

    def __post_init__(self) -> None:
        # Else drafts would take eps for images: right, and hardly ever accepted.
        assert self.width == 1 or self.target.images == (self.prediction.signal is not None)

    @property
    def recycles(self) -> bool:
        """Whether rows behind a rejection serve the next round."""
        return self.recycle is not False and self.width > 1

    def begin(self, y: Tensor, seeds: Tensor, x: Tensor) -> Samples:
        """Samples with labels ``y [B]`` and noise ``seeds [B]`` before their first round, from the
        initial states ``x [B, ...]``.
        """
        return Samples.begin(y, seeds, x, self.width)

    def draft(
        self, samples: Samples, widths: Tensor | None, W: int, sweeps: int | None = None
    ) -> Window:
        """Propose states for the teacher: step 1.

        Parameters
        ----------
        samples : Samples
        widths : Tensor or None, shape [B], int64
            Rows of each sample, ``0 .. W``, at most the transitions that it has left; None for 1.
            A sample that the teacher has not seen yet gets 1 at most. With 0, ``k`` stays, and the
            next ``x`` is not to be used.
        W : int
            The largest of the widths.
        sweeps : int or None
            See :func:`free.rounds.draft.draft_window`.
        """
        if W == 1 or not len(samples.past.rows.k):  # or nobody has been asked yet
            return self._one_row(samples, None if widths is None else widths.clamp(max=1))
        assert widths is not None
        assert self.drafter is not None
        with self.phase("bookkeeping"):
            wanted = widths.minimum(samples.past.known * W + 1)
            length = wanted.clamp(min=1).int()
            # With recycling a transition keeps its noise; else each round draws anew.
            numbers = None if self.recycles else samples.rounds
            noise, uniforms, last = window_numbers(
                samples.seeds, samples.k, numbers, length, W, samples.x.shape[1:]
            )
        with self.phase("draft"):
            draft = draft_window(
                self.drafter,
                samples,
                noise,
                wanted,
                prediction=self.prediction,
                sweeps=sweeps,
                source=source_of(self.recycle),
                rows=self.rows,
            )
        with self.phase("bookkeeping"):
            # Who wants none is asked about too: so a sample's rows begin where lengths add up to.
            rows = self.rows.select(None, length, 0, W)
            asked = self.target.inputs(
                rows.take(draft.states), rows.take(draft.k), rows.each(samples.y)
            )
        return Window(*asked, draft, rows, wanted, length, uniforms, last)

    def _one_row(self, samples: Samples, widths: Tensor | None) -> Window:
        """A window without drafts: a transition of the plain sampler."""
        with self.phase("bookkeeping"):
            x, k, one = samples.x, samples.k, torch.ones_like(samples.k)
            if widths is not None:  # some may have finished
                k = k.clamp(max=len(self.prediction.sigma) - 1)
            redraws = self.width > 1 and not self.recycles
            number = samples.rounds if redraws else torch.zeros_like(k)
            noise = normal(samples.seeds, k, number, Purpose.TRANSITION, x.shape[1:])
            sigma = self.prediction.table.sigma_at(k, x)[:, None]
            no_means = x.new_empty(len(x), 0, *x.shape[1:])
            draft = Draft(x[:, None], no_means, k[:, None], sigma, 0)
            return Window(
                *self.target.inputs(x, k, samples.y),
                draft,
                Span(len(k), 0, 1, k.device),
                wanted=one if widths is None else widths,
                length=one.int(),
                uniforms=sigma[:, :0],
                noise=noise,
            )

    def teach(self, window: Window) -> TeacherOutput:
        """Ask the run's own teacher: step 2, for loops that have no other."""
        with self.phase("teacher"):
            return self.target.teacher(window.x, window.t, window.y)

    def verify(self, samples: Samples, window: Window, output: TeacherOutput) -> Outcome:
        """Keep the drafts that the teacher's law allows, and repair the first failure: step 3.

        Parameters
        ----------
        samples : Samples
            As they were drafted from.
        window : Window
        output : TeacherOutput
            For the rows ``window.x``, ``window.t`` and ``window.y``.

        Raises
        ------
        FloatingPointError
            If the output is not finite; names the step and the samples.
        TypeError, ValueError
            If it is not of the rows that were asked about.
        """
        draft, rows = window.draft, window.rows
        batch, W = draft.k.shape
        with self.phase("verify"):
            x, k = rows.take(draft.states), rows.take(draft.k)
            answer = self.target.read(output, window.x, x, k)
            self.rows.require_finite(
                answer.output.eps,
                k,
                rows,
                network="teacher",
                samples=samples.number,
                high=None if W == 1 else window.wanted,
            )
            means, sigma = rows.windows(answer.means, batch, W), draft.sigma
            if W == 1:
                scale = sigma.view(-1, *[1] * (x.dim() - 1))
                state = torch.addcmul(answer.means, scale, window.noise)
                advance, accepted = window.length, torch.zeros_like(window.length)
            else:
                # The target's own, whatever the drafts took; where no row is real, any will do.
                sigma = rows.put(self.prediction.table.sigma_at(k, x), sigma)
                state, advance, accepted = self._decide(samples, window, answer, means, sigma)
        response = samples.response
        if self.recycles and source_of(self.recycle) == RESPONSE and W > 1:
            with self.phase("bookkeeping"):
                response = updated_response(
                    samples,
                    draft,
                    rows.windows(answer.guess, batch, W),
                    length=window.length,
                    advance=advance,
                )
        return Outcome(
            state,
            advance,
            accepted,
            means,
            sigma,
            TeacherRows(*answer.output, x, k),
            answer.guess,
            response,
            window,
        )

    def _decide(
        self, samples: Samples, window: Window, answer: Answer, means: Tensor, sigma: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Next state, advance and accepted of every sample."""
        if self.spending is not None:
            return self.spending.verify(window, answer, means, sigma, samples.number)
        state, advance, accepted, _ = verify_window(
            window.draft.states,
            window.draft.means,
            means,
            sigma,
            window.length,
            window.uniforms,
            window.noise,
            verifier=self.verifier,
        )
        return state, advance, accepted

    def advance(self, samples: Samples, outcome: Outcome, stride: int | None = None) -> Samples:
        """Move on, with what the next windows may know of this round: step 4.

        Parameters
        ----------
        samples : Samples
        outcome : Outcome
        stride : int or None
            Rows of the teacher's call from a sample's first to the next one's; None where there
            are no others than its ``length``.

        Returns
        -------
        Samples
            Also those that have made the last transition; :meth:`Samples.keep` lets them leave.
        """
        window = outcome.window
        with self.phase("bookkeeping"):
            return samples._replace(
                x=outcome.x,
                k=samples.k + outcome.advance.minimum(window.wanted),
                rounds=samples.rounds + 1,
                past=self._recycled(samples, outcome, stride),
                response=outcome.response,
            )

    def _recycled(self, samples: Samples, outcome: Outcome, stride: int | None) -> Recycled:
        """The teacher's call, for the next windows."""
        if self.width == 1:
            return samples.past  # nothing is ever drafted
        if outcome.window.draft.k.shape[1] == 1:
            row = torch.arange(len(samples.k), device=samples.k.device)
            row = row[:, None].expand(-1, self.width).contiguous()
            return Recycled(outcome.teacher, outcome.guess, row, torch.ones_like(samples.k))
        return recycle(
            outcome.teacher,
            outcome.guess,
            outcome.window.length,
            outcome.advance,
            width=self.width,
            discarded=self.recycles,
            stride=stride,
        )


def committed_deltas(outcome: Outcome) -> Tensor:
    """How far drafts and target were apart, ``|m_hat - m| / sigma``, of committed transitions.

    A rejection depends on the draft's own noise, and what lies behind it on noise that is still to
    be used; of these a window must not know (:class:`free.window.Windows`).

    Returns
    -------
    Tensor, shape [B, W - 1]
        NaN of the others.
    """
    window, draft = outcome.window, outcome.window.draft
    drafts = draft.means.shape[1]
    shift = (draft.means - outcome.means[:, :drafts]).flatten(2).norm(dim=2)
    step = torch.arange(drafts, device=shift.device)
    committed = step < torch.minimum(outcome.advance, window.length - 1)[:, None]
    return torch.where(committed, shift / outcome.sigma[:, :drafts], math.nan)
