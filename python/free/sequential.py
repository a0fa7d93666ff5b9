"""The plain sampler: one teacher call a transition. The other sampler has its law."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from free import random
from free.models.guidance import Guidance, GuidedTeacher
from free.models.output import Teacher, TeacherOutput, checked, require_finite
from free.progress import Progress, progress_bar
from free.random import Purpose
from free.report import Recorder, Report
from free.request import check_request
from free.schedule import Schedule, Table

__all__ = [
    "Labels",
    "Observer",
    "SamplingResult",
    "Seeds",
    "SequentialSampler",
    "guidance_of",
    "guided",
    "plain_step",
]

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
        self.guidance = guidance_of(teacher, cfg_scale, cfg_channels)

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
        teacher = guided(self.teacher, self.guidance)
        table, N = Table.of(self.schedule, x.device), len(self.schedule)
        recorder = Recorder(N, seeds)
        samples = torch.arange(len(y), device=x.device)
        k = torch.zeros_like(samples)
        with progress_bar(progress, N * len(y)) as report_progress:
            for step in range(N):
                x, _ = plain_step(teacher, table, x, k, y, seeds, 0 * k, samples, recorder)
                k = k + 1
                report_progress(len(y))
                if observer is not None:
                    observer(step + 1, x)
        return SamplingResult(x, recorder.finish())


def plain_step(
    teacher: Teacher,
    table: Table,
    x: Tensor,
    k: Tensor,
    y: Tensor,
    seeds: Tensor,
    rounds: Tensor,
    samples: Tensor,
    recorder: Recorder,
) -> tuple[Tensor, TeacherOutput]:
    """One transition of every sample, without drafts.

    Parameters
    ----------
    teacher : callable
        Guided, and checked.
    table : Table
    x : Tensor, shape [B, ...]
    k : Tensor, shape [B], int64
        The transitions.
    y, seeds : Tensor, shape [B], int64
    rounds : Tensor, shape [B], int64
        Which of a transition's noises; 0 where it has only one.
    samples : Tensor, shape [B], int64
        What errors and the report call the samples.
    recorder : Recorder

    Returns
    -------
    x : Tensor, shape [B, ...]
        The next states.
    out : TeacherOutput
        At the states before.

    Raises
    ------
    FloatingPointError
        If the teacher returns NaN or inf; names the step and the samples.
    """
    with recorder.phase("teacher"):
        out = teacher(x, table.timesteps[k], y)
        require_finite(out.eps, "teacher", k, samples)
    with recorder.phase("bookkeeping"):
        noise = random.normal(seeds, k, rounds, Purpose.TRANSITION, x.shape[1:])
        sigma = table.sigma_at(k, x).view([-1] + [1] * (x.dim() - 1))
        x = torch.addcmul(table.mean(k, x, out.eps), sigma, noise)
        one = torch.ones_like(k)
        recorder.round(samples, k, one, one - 1)
    return x, out


def guidance_of(teacher: Teacher, scale: float, channels: int | None) -> Guidance | None:
    """Guidance as a sampler's arguments ask for it; None for a scale of 1.

    Raises
    ------
    ValueError
        If an argument is out of its range, or the teacher has no null class.
    """
    guidance = Guidance(scale, channels, getattr(teacher, "null_label", 0))
    if scale == 1.0:
        return None
    null_label = getattr(teacher, "null_label", None)
    if null_label is None:
        raise ValueError(
            f"teacher must have a null_label to be guided (cfg_scale {scale}), got {teacher!r}"
        )
    return guidance


def guided(teacher: Teacher, guidance: Guidance | None) -> Teacher:
    """The teacher under guidance, its output checked."""
    if guidance is None:
        return checked(teacher)
    if hasattr(teacher, "guided"):  # an engine's graph combines by itself
        return checked(teacher.guided(guidance))
    return GuidedTeacher(checked(teacher), guidance)
