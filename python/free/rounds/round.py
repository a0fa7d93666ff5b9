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
from dataclasses import dataclass, field

import numpy as np
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

Phase = Callable[[str], AbstractContextManager[None]]


def no_phase(name: str) -> AbstractContextManager[None]:
    """Around a phase of a run that nobody times."""
    return nullcontext()


@dataclass(frozen=True, eq=False, kw_only=True)
class Rounds:
    """The steps of a run's rounds.

    ::

        window = rounds.draft(samples, widths)
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
    verifier, recycle, sweeps, spending
        As :class:`free.SpeculativeSampler` takes them; ``spending`` is its relaxation, or None.
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
    sweeps: int | None = None
    spending: Spending | None = None
    rows: RowSelector = field(default_factory=WantedRows)
    phase: Phase = no_phase

    def __post_init__(self) -> None:
        # Else drafts would take eps for images: right, and hardly ever accepted.
        assert self.width == 1 or self.target.images == (self.prediction.signal is not None)

    @property
    def recycles(self) -> bool:
        """Whether rows behind a rejection serve the next round."""
        return self.recycle is not False and self.width > 1

    def begin(self, y: Tensor, seeds: Tensor, x: Tensor, first: int = 0) -> Samples:
        """Samples with labels ``y [B]`` and noise ``seeds [B]`` before their first round, from the
        initial states ``x [B, ...]``; numbered from ``first``.
        """
        samples = Samples.begin(y, seeds, x, self.width)
        return samples._replace(number=samples.number + first)

    @torch.no_grad()
    def draft(
        self,
        samples: Samples,
        widths: int | Tensor,
        sweeps: int | str | None = "run",
        W: int | None = None,
    ) -> Window:
        """Propose states for the teacher: step 1.

        **Exactness rule.** Widths may depend on transitions that are committed, on costs and on
        chance of their own; never on noise that is still to be used, nor on what the teacher said
        at a discarded state (:class:`free.window.Windows`).

        Parameters
        ----------
        samples : Samples
        widths : int, or Tensor of shape [B], int64
            Rows of each sample, at most the run's ``width``. One number is cut where a sample has
            fewer transitions left; a tensor must not ask for more. A sample that the teacher has
            not seen yet gets 1 at most. With 0, ``k`` stays, and the next ``x`` is not to be used.
        sweeps : int, None or "run"
            See :func:`free.rounds.draft.draft_window`; by default the run's.
        W : int, optional
            The largest of the widths, if they are known to be right; they are looked at otherwise,
            which waits for the device.

        Raises
        ------
        ValueError
            If a width is negative or above the run's.
        """
        if W is None:
            widths, W = self._checked(samples, widths)
        if W == 1 or not len(samples.past.rows.k):
            return self._one_row(samples, None if isinstance(widths, int) else widths)
        assert not isinstance(widths, int)
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
                sweeps=self.sweeps if isinstance(sweeps, str) else sweeps,
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

    def _checked(self, samples: Samples, widths: int | Tensor) -> tuple[Tensor, int]:
        """Widths of all samples, and the largest, at least 1."""
        least, W = map(
            int, (widths,) * 2 if isinstance(widths, (int, np.integer)) else widths.aminmax()
        )
        if least < 0 or self.width < W:
            raise ValueError(f"widths must be in 0..{self.width}, got {least if least < 0 else W}")
        if isinstance(widths, (int, np.integer)):
            widths = (len(self.prediction.sigma) - samples.k).clamp(min=0, max=W)
        return widths, max(W, 1)

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
                Span(len(k), 0, 1),
                wanted=one if widths is None else widths.clamp(max=1),
                length=torch.ones_like(k, dtype=torch.int32),
                uniforms=sigma[:, :0],
                noise=noise,
            )

    def teach(self, window: Window) -> TeacherOutput:
        """Ask the run's own teacher: step 2, for loops that have no other."""
        with self.phase("teacher"):
            return self.target.teacher(window.x, window.t, window.y)

    @torch.no_grad()
    def verify(self, samples: Samples, window: Window, output: TeacherOutput) -> Outcome:
        """Keep the drafts that the teacher's law allows, and repair the first failure: step 3.

        ``samples`` are as they were drafted from; ``output`` is for the rows ``window.x``,
        ``window.t`` and ``window.y``, else TypeError or ValueError is raised. Raises
        FloatingPointError if it is not finite, naming the step and the samples.
        """
        draft, rows = window.draft, window.rows
        batch, W = draft.k.shape
        with self.phase("teacher"):
            x, k = rows.take(draft.states), rows.take(draft.k)
            answer = self.target.read(output, window.x, x, k)
            self.rows.require_finite(
                answer.output.eps,
                k,
                rows,
                network="teacher",
                samples=samples.number,
                high=window.wanted,
            )
        with self.phase("bookkeeping" if W == 1 else "verify"):
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

        Samples that have made the last transition stay; :meth:`Samples.keep` lets them leave.
        ``stride`` is that of :func:`free.rounds.state.recycle`.
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
    """How far apart drafts and target were, ``|m_hat - m| / sigma``, in committed transitions.

    [B, W - 1], NaN of the others. A rejection depends on the draft's own noise, and what lies
    behind it on noise that is still to be used; of these a window must not know
    (:class:`free.window.Windows`).
    """
    window, draft = outcome.window, outcome.window.draft
    drafts = draft.means.shape[1]
    shift = (draft.means - outcome.means[:, :drafts]).flatten(2).norm(dim=2)
    step = torch.arange(drafts, device=shift.device)
    committed = step < torch.minimum(outcome.advance, window.length - 1)[:, None]
    return torch.where(committed, shift / outcome.sigma[:, :drafts], math.nan)
