"""The speculative sampler: the plain sampler's law in fewer teacher calls.

States are float32 and all randomness comes from the counter-based noise of
:mod:`free.random`, so with a fixed window a sample depends on its own seed and label, not on its
batch.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from free import random
from free.drafters.protocol import Drafter, DraftingBatch
from free.drafting import draft_window
from free.models.output import Teacher, TeacherRows, require_finite
from free.ops import verify_window
from free.prediction import Prediction
from free.progress import Progress, progress_bar
from free.random import Purpose
from free.recycling import Recycled, recycle
from free.relaxation import Relaxation, Spending
from free.report import Recorder
from free.request import check_request
from free.schedule import Schedule, Table
from free.sequential import (
    Labels,
    Observer,
    SamplingResult,
    Seeds,
    guidance_of,
    guided,
    plain_step,
)
from free.settings import check_settings
from free.sources import SourceRecord, evidence
from free.window import Committed, Run, WindowRule
from free.window.acceptance import committed_deltas
from free.window.rule import check_choice

__all__ = ["SpeculativeSampler"]


class SpeculativeSampler:
    """Draws from the plain sampler's law in fewer rounds (supplement, section B).

    A round drafts ``window - 1`` states, evaluates the teacher on them and on the current
    state in one call, keeps the longest prefix that the verifier accepts and repairs the next
    transition. It advances each sample by 1 to ``window`` transitions. What each
    part of a round may look at, so that the law stays the teacher's, is said where it is made:
    ``drafting``, ``recycling``, ``sources``, ``ops.verify_window``.

    Parameters
    ----------
    teacher : callable
        ``teacher(x [R, ...], t [R], y [R]) -> TeacherOutput``; ``x`` float32, ``t`` of the
        schedule's ``timesteps`` and ``y`` int64. Rows must not depend on each other. May have
        ``sample_shape``, ``num_classes`` and ``null_label``.
    drafter : Drafter, "frozen" or None
        ``"frozen"`` needs no training (:class:`free.FrozenDrafter`); None needs ``window=1``.
    schedule : Schedule
    window : int, "auto" or WindowRule
        Teacher rows of a round, >= 1; 1 is the plain sampler. ``"auto"`` measures what rounds cost
        and takes what pays most, in each round, and the plain sampler where nothing does
        (:class:`free.AutoWindow`); seeds must then be distinct.
    cfg_scale : float
        Classifier-free guidance; 1 is none. Otherwise the teacher needs ``null_label``.
    cfg_channels : int or None
        How many leading channels are guided; None for all, 3 for the original DiT's figures.
    verifier : {"reflection", "block"}
        Whether drafts are judged one by one or together (:func:`free.ops.verify_window`). The
        latter keeps more of a window, but what is behind a rejection cannot be recycled.
    sweeps : int, None or "auto"
        How a window is drafted: in this many drafter calls, each for the whole window, or, with
        None, in one call for each state (autoregression, the paper's way). ``"auto"`` is chosen
        with the window.
    recycle : bool or {"response", "control_variate", "reuse", "drafter"}
        Whether what the teacher said behind a rejection guides the next draft of the same
        transitions, and how (:mod:`free.sources`); True chooses by what has proved best. A
        transition then has one noise, however often it is drafted. Needs a verifier that stops at
        the first rejection.
    relaxation : Relaxation or None
        Accept more where the teacher is unsure, at a distance from its law that the report bounds
        (``tv_bound``). None is exact.

    Raises
    ------
    ValueError
        If an argument is out of its range, or a transition before the last is
        deterministic (no noise, no coupling) and ``window`` is not 1, or the relaxation does not
        fit the schedule or the verifier.
    """

    def __init__(
        self,
        teacher: Teacher,
        drafter: Drafter | str | None,
        schedule: Schedule,
        window: int | str | WindowRule = 8,
        cfg_scale: float = 1.0,
        cfg_channels: int | None = None,
        verifier: str = "reflection",
        sweeps: int | str | None = None,
        recycle: bool | str = False,
        relaxation: Relaxation | None = None,
    ) -> None:
        drafting = (window, verifier, sweeps, recycle, relaxation)
        settings = check_settings(teacher, drafter, schedule, *drafting)
        self.teacher = teacher
        self.drafter = settings.drafter
        self.schedule = schedule
        self.window = window
        self.guidance = guidance_of(teacher, cfg_scale, cfg_channels)
        self.verifier = verifier
        self.sweeps = sweeps
        self.recycle = recycle
        self.relaxation = relaxation
        self._windows = settings.rule

    @torch.no_grad()
    def sample(
        self,
        labels: Labels,
        seed: Seeds = 0,
        shape: Sequence[int] | None = None,
        progress: Progress = False,
        observer: Observer | None = None,
    ) -> SamplingResult:
        """Draw one sample per label.

        Parameters
        ----------
        labels : Tensor or sequence of int, shape [B]
            Classes, ``0 .. num_classes``; the last is the null class.
        seed : int, or Tensor or sequence of int of shape [B]
            64-bit noise seeds; with one integer, sample ``i`` has ``seed + i``.
        shape : sequence of int, optional
            Shape of one sample; default ``teacher.sample_shape``.
        progress : bool or callable
            True shows a bar; a function is called with the number of transitions made.
        observer : callable, optional
            ``observer(made, states [B, ...])`` is called after every round; ``made`` transitions
            the slowest sample has behind it. The states are the sampler's own, not to be changed.

        Returns
        -------
        SamplingResult
            ``samples [B, ...]`` and the report.

        Raises
        ------
        ValueError
            If the request is malformed, or a relaxation needs a variance that the teacher lacks.
        FloatingPointError
            If a network returns NaN or inf; names the step and the samples.
        """
        y, seeds, x = check_request(self.teacher, labels, seed, shape)
        teacher = guided(self.teacher, self.guidance)
        table, N = Table.of(self.schedule, x.device), len(self.schedule)
        recorder = Recorder(N, seeds)
        prediction = Prediction.of(table)
        record = SourceRecord(len(y), self.recycle, x.device)
        spending: Spending | None = None
        if self.relaxation is not None:
            spending = Spending(self.relaxation, self.schedule, len(y), x.device)
        largest = min(self._windows.largest, N)
        recycles = self.recycle is not False and largest > 1
        # With recycling a transition keeps its noise; else each round draws anew.
        redraw = not recycles and largest > 1
        if self.drafter is not None and largest > 1:
            self.drafter.begin(DraftingBatch(table, self.guidance))
        windows = self._windows.begin(
            Run(
                self.teacher,
                teacher,
                self.guidance is not None,
                self.drafter,
                table,
                prediction,
                y,
                seeds,
                x,
                self.sweeps,
                self.verifier,
            )
        )
        if windows.learns and len(seeds.unique()) < len(seeds):
            # A sample ahead of another with its noise would tell that one's window about it.
            raise ValueError(
                "seed must not repeat in a batch whose windows learn, as with window='auto', "
                f"got {seeds.tolist()}"
            )

        result = torch.empty_like(x)
        samples = torch.arange(len(y), device=x.device)  # the unfinished ones
        k, rounds = torch.zeros_like(samples), torch.zeros_like(samples)
        past: Recycled | None = None  # nothing is known to draft from
        recorder.lap()
        with progress_bar(progress, N * len(y)) as report_progress:
            while len(samples):
                with recorder.phase("bookkeeping"):
                    known = None if past is None else past.known.cpu().numpy()
                    at = k.cpu().numpy()
                    choice = windows.choose(at, known)
                    check_choice(choice, N - at, 1 if known is None else largest)
                    length = torch.as_tensor(choice.lengths, dtype=torch.int32, device=x.device)
                deltas = None
                for stretch in range(choice.plain):
                    if stretch:
                        k, rounds = k + 1, rounds + 1
                        if observer is not None:
                            result[samples] = x
                            observer(int(k.min()), result)
                    x_rows, k_rows, advance = x, k, length
                    step = (seeds, rounds * redraw, samples, recorder)
                    x, out = plain_step(teacher, table, x, k, y, *step)
                    report_progress(len(y))
                if not choice.plain:
                    with recorder.phase("bookkeeping"):
                        z, u, fresh = _round_noise(seeds, k, rounds * redraw, length, x.shape[1:])
                    with recorder.phase("draft"):
                        draft = draft_window(
                            self.drafter,
                            prediction,
                            x,
                            k,
                            y,
                            past,
                            z,
                            length,
                            choice.sweeps,
                            record.source(),
                            record.response(),
                            record.compares,
                            samples,
                        )
                    with recorder.phase("teacher"):
                        b, j = _real_rows(length)
                        x_rows, k_rows = draft.states[b, j], k[b] + j
                        out = teacher(x_rows, table.timesteps[k_rows], y[b])
                        require_finite(out.eps, "teacher", k_rows, samples[b])
                    with recorder.phase("verify"):
                        means = torch.zeros_like(draft.states)
                        sigma = x.new_ones(means.shape[:2])
                        means[b, j] = table.mean(k_rows, x_rows, out.eps)
                        sigma[b, j] = table.sigma_at(k_rows, x_rows)
                        judged = (draft.states, draft.means, means, sigma, length, u, fresh)
                        if spending is None:
                            x, advance, accepted, _ = verify_window(*judged, self.verifier)
                        else:
                            x, advance, accepted = spending.verify(
                                judged, (b, j), k_rows, out.variance, samples
                            )
                    with recorder.phase("bookkeeping"):
                        recorder.round(samples, k, length, accepted, draft.calls)
                        report_progress(int(advance.sum()))
                        if windows.learns:
                            deltas = committed_deltas(draft.means, means, sigma, length, advance)
                        if record.learns:
                            seen = torch.zeros_like(means)
                            seen[b, j] = prediction.from_eps(k_rows, x_rows, out.eps)
                            record.update(evidence(draft, prediction, k, seen, length, advance))
                with recorder.phase("bookkeeping"):
                    rows = TeacherRows(*out, x_rows, k_rows)
                    guess = prediction.from_eps(k_rows, x_rows, out.eps)
                    k, rounds = k + advance, rounds + 1
                    going = k < N
                    result[samples] = x
                    past = recycle(rows, guess, length, advance, largest, recycles)
                    recorder.kept(past.bytes)
                    past = past.keep(going)
                    record.keep(going)
                    live = (samples, seeds, x, k, rounds, y)
                    samples, seeds, x, k, rounds, y = (column[going] for column in live)
                made = advance + max(choice.plain - 1, 0)
                windows.made(Committed.of(at, made, deltas, recorder.lap(), going))
                if observer is not None:
                    observer(min(k.tolist(), default=N), result)
        if spending is not None:
            recorder.relaxed(spending.spent, spending.log_likelihood)
        return SamplingResult(result, recorder.finish())


def _round_noise(
    seeds: Tensor, k: Tensor, rounds: Tensor, length: Tensor, shape: Sequence[int]
) -> tuple[Tensor, Tensor, Tensor]:
    """Noises [B, W-1, ...] and uniforms [B, W-1] of the drafts, and the noise [B, ...] of the
    transition that is sampled from the target if every draft is accepted.
    """
    batch, W = len(k), int(length.max())
    at = (k[:, None] + torch.arange(W, device=k.device)).flatten()
    of = (seeds.repeat_interleave(W), at, rounds.repeat_interleave(W))
    z = random.normal(*of, Purpose.TRANSITION, shape).view(batch, W, *shape)
    u = random.uniform(*of, Purpose.DECISION, ()).view(batch, W)
    last = z[torch.arange(batch, device=k.device), length.long() - 1]
    return z[:, :-1].contiguous(), u[:, :-1].contiguous(), last


def _real_rows(length: Tensor) -> tuple[Tensor, Tensor]:
    """Sample and position of every row within its sample's length, sample by sample."""
    inside = torch.arange(int(length.max()), device=length.device) < length[:, None]
    b, j = inside.nonzero(as_tuple=True)
    return b, j
