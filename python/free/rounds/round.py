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
from functools import wraps
from typing import ParamSpec, TypeVar

import numpy as np
import torch
from torch import Tensor

from free.drafters.protocol import Drafter
from free.models.output import TeacherOutput, TeacherRows
from free.ops import Advanced, WindowNoise, advance_samples_, verify_window
from free.reference.draft import RESPONSE
from free.rounds.draft import blind_window, draft_window
from free.rounds.draft_source import source_of, updated_response
from free.rounds.noise import window_numbers
from free.rounds.relaxation import Spending
from free.rounds.row_selection import RowSelector, Selection, Span, WantedRows
from free.rounds.state import Draft, Outcome, Recycled, Samples, Window
from free.rounds.target import Answer, Target
from free.rounds.tolerance import Leeway
from free.schedule.table import Table

#: A distance of draft and target at which half of the drafts stand, ``2 Phi(-EVEN / 2) = 1/2``.
EVEN = 1.349

P = ParamSpec("P")
T = TypeVar("T")
Phase = Callable[[str], AbstractContextManager[None]]


def no_phase(name: str) -> AbstractContextManager[None]:
    """Around a phase of a run that nobody times."""
    return nullcontext()


def _without_gradients(step: Callable[P, T]) -> Callable[P, T]:
    """A step that keeps no graph; samplers have seen to it already, and torch's own way costs."""

    @wraps(step)
    def run(*args: P.args, **kwargs: P.kwargs) -> T:
        if not torch.is_grad_enabled():
            return step(*args, **kwargs)
        with torch.no_grad():
            return step(*args, **kwargs)

    return run


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
    table : Table
        The schedule.
    width : int
        Rows of a window, at most; 1 is the plain sampler.
    drafter : Drafter or None
        That of this run, as its ``begin`` returned it; None needs a width of 1.
    verifier, recycle, sweeps, spending
        As :class:`free.SpeculativeSampler` takes them; ``spending`` is its relaxation, or None.
    leeway : Leeway or None
        That of the verifier ``"tolerance"``, which it needs.
    blind : bool
        Whether the first window is drafted before the teacher was ever asked.
    rows : RowSelector
        Which rows of a window the networks are asked about.
    phase : callable
        ``phase(name)`` is a context around each phase; :meth:`free.rounds.report.Recorder.phase`.
    """

    target: Target
    table: Table
    width: int
    drafter: Drafter | None = None
    verifier: str = "reflection"
    recycle: bool | str = False
    sweeps: int | None = None
    spending: Spending | None = None
    leeway: Leeway | None = None
    blind: bool = False
    rows: RowSelector = field(default_factory=WantedRows)
    phase: Phase = no_phase

    @property
    def recycles(self) -> bool:
        """Whether rows behind a rejection serve the next round."""
        return self.recycle is not False and self.width > 1

    @property
    def source(self) -> int:
        """Where the draft of a recycled transition comes from (:mod:`free.rounds.draft_source`)."""
        return source_of(self.recycle)

    @property
    def steps(self) -> int:
        """Transitions of the schedule, N."""
        return self.table.sigma.shape[0]  # len() of a tensor takes a call more

    def begin(self, y: Tensor, seeds: Tensor, x: Tensor, first: int = 0) -> Samples:
        """Samples with labels ``y [B]`` and noise ``seeds [B]`` before their first round, from the
        initial states ``x [B, ...]``; numbered from ``first``.
        """
        samples = Samples.begin(y, seeds, x, self.width, history=self.table.history)
        return samples._replace(number=samples.number + first)

    @_without_gradients
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
            Rows of each sample, at most the run's ``width``; fewer where a sample has fewer
            transitions left. A sample that the teacher has not seen yet gets 1 at most, but in a
            first round within a tolerance. One that gets 0 stays where it is.
        sweeps : int, None or "run"
            See :func:`free.rounds.draft.draft_window`; by default the run's.
        W : int, optional
            The largest of the widths, if they are known to be right; they are looked at otherwise,
            which waits for the device.

        Raises
        ------
        ValueError
            If a width is negative or above the run's, or there are no samples.
        """
        if not samples.k.shape[0]:
            raise ValueError("samples must be at least one, got none")
        if W is None:
            widths, W = self._checked(samples, widths)
        asked = None if isinstance(widths, int) else widths
        told = bool(samples.past.rows.k.shape[0])
        if W == 1 or not (told or self.blind):
            return self._one_row(samples, asked)
        assert self.drafter is not None
        with self.phase("bookkeeping"):
            drawn = self._numbers(samples, asked, W)
        with self.phase("draft"):
            if told:
                draft = draft_window(
                    self.drafter,
                    samples,
                    drawn.noise,
                    drawn.drafted,
                    table=self.table,
                    sweeps=self.sweeps if isinstance(sweeps, str) else sweeps,
                    source=self.source,
                    rows=self.rows,
                )
            else:
                draft = blind_window(samples, W, self.table)
        with self.phase("bookkeeping"):
            # Who wants none is asked about too: so a sample's rows begin where lengths add up to.
            rows = self.rows.select(None, drawn.length, 0, W)
            # Its states are not those that the teacher is given.
            return self._window(samples, draft, rows, rows.take(draft.states), drawn)

    def _window(
        self, samples: Samples, draft: Draft, rows: Selection, states: Tensor, drawn: WindowNoise
    ) -> Window:
        """The rows that the teacher is to be asked about."""
        x, t, label, k, _ = self.target.inputs(draft.states, draft.k, samples.y, rows)
        return Window(
            x,
            t,
            label,
            draft,
            rows,
            states,
            k,
            drawn.wanted,
            drawn.length,
            drawn.uniforms,
            drawn.last,
        )

    def _checked(self, samples: Samples, widths: int | Tensor) -> tuple[Tensor, int]:
        """Widths of all samples, and the largest, at least 1."""
        least, W = map(
            int, (widths,) * 2 if isinstance(widths, (int, np.integer)) else widths.aminmax()
        )
        if least < 0 or self.width < W:
            raise ValueError(f"widths must be in 0..{self.width}, got {least if least < 0 else W}")
        if isinstance(widths, (int, np.integer)):
            widths = (self.steps - samples.k).clamp(min=0, max=W)
        if samples.past.rows.k.shape[0] or not self.blind:
            widths = widths.minimum(samples.past.known * W + 1)
        return widths, max(int(widths.max()), 1)

    def _numbers(self, samples: Samples, widths: Tensor | None, W: int) -> WindowNoise:
        """What the samples' windows draw, and how many rows they have."""
        # With recycling a transition keeps its noise; else each round draws anew.
        numbers = None if self.recycles or self.width == 1 else samples.rounds
        return window_numbers(
            samples.x, samples.seeds, samples.k, numbers, widths, W=W, steps=self.steps
        )

    def _one_row(self, samples: Samples, widths: Tensor | None) -> Window:
        """A window without drafts: a transition of the plain sampler."""
        with self.phase("bookkeeping"):
            x, k = samples.x, samples.k
            drawn = self._numbers(samples, widths, 1)
            if widths is not None:  # some may have finished
                k = k.clamp(max=self.steps - 1)
            draft = Draft(x[:, None], drawn.noise, k[:, None], 0)
            return self._window(samples, draft, Span(k.shape[0], 0, 1), x, drawn)

    def teach(self, window: Window) -> TeacherOutput:
        """Ask the run's own teacher: step 2, for loops that have no other."""
        with self.phase("teacher"):
            return self.target.teacher(window.x, window.t, window.y)

    @_without_gradients
    def verify(self, samples: Samples, window: Window, output: TeacherOutput) -> Outcome:
        """Keep the drafts that the teacher's law allows, and repair the first failure: step 3.

        ``samples`` are as they were drafted from; ``output`` is for the rows ``window.x``,
        ``window.t`` and ``window.y``, else TypeError or ValueError is raised. Raises
        FloatingPointError if it is not finite, naming the step and the samples.
        """
        draft, rows, states, steps = window.draft, window.rows, window.states, window.steps
        batch, W = draft.k.shape
        with self.phase("teacher"):
            answer = self.target.read(output, window.x, states, steps, rows, samples.before)
            self.rows.require_finite(
                answer.output.eps,
                steps,
                rows,
                network="teacher",
                samples=samples.number,
                high=window.wanted,
            )
        if self.leeway is not None and W > 1:
            return self._within_tolerance(samples, window, answer)
        with self.phase("bookkeeping" if W == 1 else "verify"):
            means = rows.windows(answer.means, batch, W)
            sigma = rows.windows(answer.sigma, batch, W)  # the target's, whatever drafts took
            if W == 1:
                scale = sigma.view(-1, *[1] * (states.dim() - 1))
                state = torch.addcmul(answer.means, scale, window.noise)
                advance, accepted = window.length, torch.zeros_like(window.length)
            else:
                state, advance, accepted = self._decide(samples, window, answer, means, sigma)
        response = samples.response
        if W > 1 and self.recycles and self.source == RESPONSE:
            with self.phase("bookkeeping"):
                response = updated_response(
                    samples,
                    draft,
                    rows.windows(answer.guess, batch, W),
                    length=window.length,
                    advance=advance,
                )
        teacher, guess = TeacherRows(*answer.output, states, steps), answer.guess
        start = None if self.leeway is None else guess
        return Outcome(
            state, advance, accepted, means, sigma, teacher, guess, response, window, start
        )

    def _within_tolerance(self, samples: Samples, window: Window, answer: Answer) -> Outcome:
        """The outcome of a window of a law without noise."""
        assert self.leeway is not None
        with self.phase("verify"):
            kept = self.leeway.verify(samples, window, answer)
            sigma = window.rows.windows(answer.sigma, *window.draft.k.shape)
        return Outcome(
            kept.x,
            kept.advance,
            kept.accepted,
            kept.means,
            sigma,
            TeacherRows(*answer.output, window.states, window.steps),
            answer.guess,
            kept.response,
            window._replace(draft=window.draft._replace(states=kept.states)),
            kept.guess,
            kept.offsets,
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

    def advance(
        self,
        samples: Samples,
        outcome: Outcome,
        stride: int | None = None,
        log: Tensor | None = None,
    ) -> Samples:
        """Move on, with what the next windows may know of this round: step 4.

        The states are the outcome's: in ``outcome.x``, which is written to, samples that wanted no
        row get their old state. Samples that have made the last transition stay;
        :meth:`Samples.keep` lets them leave. For ``stride`` and ``log`` see
        :func:`free.ops.advance_samples_`.
        """
        window = outcome.window
        with self.phase("bookkeeping"):
            advanced = advance_samples_(
                outcome.x,
                samples.x,
                samples.k,
                samples.rounds,
                wanted=window.wanted,
                length=window.length,
                advance=outcome.advance,
                accepted=outcome.accepted,
                width=self.width,
                discarded=self.recycles,
                stride=stride,
                log=log,
            )
            before = samples.before
            if before is not None:
                wanted = (window.wanted > 0).view([-1] + [1] * (before.dim() - 1))
                made = outcome.guess if outcome.start is None else outcome.start
                before = torch.where(wanted, made[advanced.row[:, 0]], before)
            return samples._replace(
                x=outcome.x,
                before=before,
                k=advanced.k,
                rounds=advanced.rounds,
                # The plain sampler never drafts anything.
                past=samples.past if self.width == 1 else recycle(outcome, advanced),
                response=outcome.response,
            )


def recycle(outcome: Outcome, advanced: Advanced) -> Recycled:
    """What the round's teacher call leaves to the next window."""
    return Recycled(outcome.teacher, outcome.guess, advanced.row, advanced.known, outcome.start)


def committed_deltas(outcome: Outcome) -> Tensor:
    """How far apart drafts and target were, ``|m_hat - m| / sigma``, in committed transitions.

    [B, W - 1], NaN of the others. A rejection depends on the draft's own noise, and what lies
    behind it on noise that is still to be used; of these a window must not know
    (:class:`free.window.Windows`). Within a tolerance there is no noise: there it is the offset,
    also of the first draft that does not stand, with 1.35, which stands half the time, for one of
    the tolerance.
    """
    if outcome.offsets is not None:
        return EVEN * outcome.offsets
    window, draft = outcome.window, outcome.window.draft
    drafts = draft.means.shape[1]
    shift = (draft.means - outcome.means[:, :drafts]).flatten(2).norm(dim=2)
    step = torch.arange(drafts, device=shift.device)
    committed = step < torch.minimum(outcome.advance, window.length - 1)[:, None]
    return torch.where(committed, shift / outcome.sigma[:, :drafts], math.nan)
