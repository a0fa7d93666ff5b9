"""The samplers: the plain one, and the speculative one with the same law.

States are float32 and all randomness comes from the counter-based noise of
:mod:`free.random`, so a sample depends on its own seed and label, not on its batch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from free import random
from free.drafters.frozen import FrozenDrafter
from free.drafters.protocol import Drafter, DraftingBatch
from free.drafting import draft_window
from free.models.guidance import Guidance, GuidedTeacher
from free.models.output import Teacher, TeacherRows, checked, require_finite
from free.ops import check_verifier, verify_window
from free.prediction import Prediction
from free.progress import Progress, progress_bar
from free.random import Purpose
from free.recycling import Recycled, recycle
from free.report import Recorder, Report
from free.request import check_request
from free.schedule import Schedule, Table
from free.sources import SOURCES, SourceRecord, evidence
from free.verifiers import LOOKING_AHEAD
from free.window import window_lengths

__all__ = ["Observer", "SamplingResult", "SequentialSampler", "SpeculativeSampler"]

Labels = Tensor | Sequence[int]
Seeds = int | Tensor | Sequence[int]
Observer = Callable[[int, Tensor], object]


class SamplingResult(NamedTuple):
    """Samples and what it took to draw them.

    Attributes
    ----------
    samples : Tensor, shape [B, ...], float32
    report : Report
    """

    samples: Tensor
    report: Report


class SequentialSampler:
    """The plain sampler: one teacher call a transition.

    Parameters
    ----------
    teacher : callable
        ``teacher(x [R, ...], t [R], y [R]) -> TeacherOutput``.
    schedule : Schedule
    cfg_scale : float
        Classifier-free guidance; 1 is none. Otherwise the teacher needs ``null_label``.
    cfg_channels : int or None
        How many leading channels are guided; None for all, 3 for the original DiT's figures.

    Raises
    ------
    ValueError
        If an argument is out of its range.
    """

    def __init__(
        self,
        teacher: Teacher,
        schedule: Schedule,
        cfg_scale: float = 1.0,
        cfg_channels: int | None = None,
    ) -> None:
        self.teacher = teacher
        self.schedule = schedule
        self.guidance = _guidance(teacher, cfg_scale, cfg_channels)

    @torch.no_grad()
    def sample(
        self,
        labels: Labels,
        seed: Seeds = 0,
        shape: Sequence[int] | None = None,
        progress: Progress = False,
        observer: Observer | None = None,
    ) -> SamplingResult:
        """Draw one sample per label; the arguments are those of ``SpeculativeSampler.sample``."""
        y, seeds, x = check_request(self.teacher, labels, seed, shape)
        teacher = _guided(self.teacher, self.guidance)
        table, N = Table.of(self.schedule, x.device), len(self.schedule)
        recorder = Recorder(N, seeds)
        samples = torch.arange(len(y), device=x.device)
        one = torch.ones_like(samples)
        with progress_bar(progress, N * len(y)) as report_progress:
            for step in range(N):
                k = step * one
                with recorder.phase("teacher"):
                    eps = teacher(x, table.timesteps[k], y).eps
                    require_finite(eps, "teacher", k, samples)
                with recorder.phase("bookkeeping"):
                    noise = random.normal(seeds, k, 0 * k, Purpose.TRANSITION, x.shape[1:])
                    x = table.mean(k, x, eps) + table.sigma[step] * noise
                    recorder.round(samples, k, one, one - 1)
                    report_progress(len(y))
                if observer is not None:
                    observer(step + 1, x)
        return SamplingResult(x, recorder.finish())


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
    window : int
        Teacher rows of a round, >= 1; 1 is the plain sampler.
    cfg_scale : float
        Classifier-free guidance; 1 is none. Otherwise the teacher needs ``null_label``.
    cfg_channels : int or None
        How many leading channels are guided; None for all, 3 for the original DiT's figures.
    verifier : {"reflection", "block"}
        Whether drafts are judged one by one or together (:func:`free.ops.verify_window`). The
        latter keeps more of a window, but what is behind a rejection cannot be recycled.
    sweeps : int or None
        How a window is drafted: in this many drafter calls, each for the whole window, or, with
        None, in one call for each state (autoregression, the paper's way).
    recycle : bool or {"response", "control_variate", "reuse", "drafter"}
        Whether what the teacher said behind a rejection guides the next draft of the same
        transitions, and how (:mod:`free.sources`); True chooses by what has proved best. A
        transition then has one noise, however often it is drafted. Needs a verifier that stops at
        the first rejection.

    Raises
    ------
    ValueError
        If an argument is out of its range, or a transition before the last is
        deterministic (no noise, no coupling) and ``window`` is not 1.
    """

    def __init__(
        self,
        teacher: Teacher,
        drafter: Drafter | str | None,
        schedule: Schedule,
        window: int = 8,
        cfg_scale: float = 1.0,
        cfg_channels: int | None = None,
        verifier: str = "reflection",
        sweeps: int | None = None,
        recycle: bool | str = False,
    ) -> None:
        if not isinstance(schedule, Schedule):
            raise TypeError(f"schedule must be a Schedule, got {type(schedule).__name__}")
        if not callable(teacher):
            raise TypeError(f"teacher must be callable, got {type(teacher).__name__}")
        if isinstance(drafter, str) and drafter == "frozen":
            has_image = Table.of(schedule, "cpu").is_variance_preserving()
            drafter = FrozenDrafter("image" if has_image else "eps")
        if isinstance(window, bool) or not isinstance(window, int) or window < 1:
            raise ValueError(f"window must be an integer >= 1, got {window!r}")
        if (window > 1 or drafter is not None) and (
            isinstance(drafter, type) or not isinstance(drafter, Drafter)
        ):
            raise TypeError(
                "drafter must have begin, predict and carry_from for window > 1, or be 'frozen', "
                f"got {drafter!r}"
            )
        if window > 1 and (schedule.sigma[:-1] == 0).any():
            raise ValueError(
                "schedule must have sigma > 0 before its last transition to be speculated, "
                f"got sigma = 0 at step {int((schedule.sigma[:-1] == 0).argmax())}"
            )
        check_verifier(verifier)
        if sweeps is not None and (
            isinstance(sweeps, bool) or not isinstance(sweeps, int) or sweeps < 1
        ):
            raise ValueError(f"sweeps must be None or an integer >= 1, got {sweeps!r}")
        if not isinstance(recycle, bool) and recycle not in SOURCES:
            raise ValueError(
                f"recycle must be True, False or one of {', '.join(map(repr, SOURCES))}, "
                f"got {recycle!r}"
            )
        if recycle is not False and verifier in LOOKING_AHEAD:
            raise ValueError(
                f"recycle must be False with verifier {verifier!r}, whose decisions look at later "
                f"drafts, so that their noise must not be used again; got {recycle!r}"
            )
        self.teacher = teacher
        self.drafter: Drafter | None = drafter
        self.schedule = schedule
        self.window = window
        self.guidance = _guidance(teacher, cfg_scale, cfg_channels)
        self.verifier = verifier
        self.sweeps = sweeps
        self.recycle = recycle

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
            If the request is malformed.
        FloatingPointError
            If a network returns NaN or inf; names the step and the samples.
        """
        y, seeds, x = check_request(self.teacher, labels, seed, shape)
        teacher = _guided(self.teacher, self.guidance)
        table, N = Table.of(self.schedule, x.device), len(self.schedule)
        recorder = Recorder(N, seeds)
        prediction = Prediction.of(table)
        record = SourceRecord(len(y), self.recycle, x.device)
        window = min(self.window, N)
        recycles = self.recycle is not False and window > 1
        # With recycling a transition keeps its noise; else each round draws anew.
        redraw = not recycles and window > 1

        result = torch.empty_like(x)
        samples = torch.arange(len(y), device=x.device)  # the unfinished ones
        k, rounds = torch.zeros_like(samples), torch.zeros_like(samples)
        past: Recycled | None = None  # nothing is known to draft from: one row in the first round
        if self.drafter is not None and window > 1:
            self.drafter.begin(DraftingBatch(table, self.guidance))
        with progress_bar(progress, N * len(y)) as report_progress:
            while len(samples):
                with recorder.phase("bookkeeping"):
                    length = window_lengths(k, window if past is not None else 1, N)
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
                        self.sweeps,
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
                    sigma[b, j] = table.sigma[k_rows]
                    x, advance, accepted, _ = verify_window(
                        draft.states, draft.means, means, sigma, length, u, fresh, self.verifier
                    )
                with recorder.phase("bookkeeping"):
                    recorder.round(samples, k, length, accepted, draft.calls)
                    report_progress(int(advance.sum()))
                    rows = TeacherRows(*out, x_rows, k_rows)
                    guess = prediction.from_eps(k_rows, x_rows, out.eps)
                    if record.learns:
                        seen = torch.zeros_like(means)
                        seen[b, j] = guess
                        record.update(evidence(draft, prediction, k, seen, length, advance))
                    k, rounds = k + advance, rounds + 1
                    going = k < N
                    result[samples] = x
                    past = recycle(rows, guess, length, advance, window, recycles)
                    recorder.kept(past.bytes)
                    past = past.keep(going)
                    record.keep(going)
                    live = (samples, seeds, x, k, rounds, y)
                    samples, seeds, x, k, rounds, y = (column[going] for column in live)
                if observer is not None:
                    observer(min(k.tolist(), default=N), result)
        return SamplingResult(result, recorder.finish())


def _guidance(teacher: Teacher, scale: float, channels: int | None) -> Guidance | None:
    guidance = Guidance(scale, channels, getattr(teacher, "null_label", 0))
    if scale == 1.0:
        return None
    null_label = getattr(teacher, "null_label", None)
    if null_label is None:
        raise ValueError(
            f"teacher must have a null_label to be guided (cfg_scale {scale}), got {teacher!r}"
        )
    return guidance


def _guided(teacher: Teacher, guidance: Guidance | None) -> Teacher:
    if guidance is None:
        return checked(teacher)
    if hasattr(teacher, "guided"):  # an engine's graph combines by itself
        return checked(teacher.guided(guidance))
    return GuidedTeacher(checked(teacher), guidance)


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
