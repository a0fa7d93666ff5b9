"""The plain sampler: one teacher call a transition. The other sampler has its law."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from free.devices import require_device
from free.models.output import Teacher
from free.rounds.report import Recorder
from free.rounds.target import guidance_of
from free.sampling.assembly import Plan, assemble
from free.sampling.cuda_graphs import Graphing, Graphs
from free.sampling.loop import draw
from free.sampling.request import (
    Labels,
    Observer,
    Progress,
    SamplingResult,
    Seeds,
    begin_trajectory,
    check_request,
    explained_sampling,
    progress_bar,
    why_watched,
)
from free.sampling.settings import check_times
from free.schedule.schedule import Schedule
from free.window.rule import FixedWindows


class SequentialSampler:
    """The plain sampler: one teacher call a transition.

    Parameters
    ----------
    teacher, schedule, cfg_scale, cfg_channels
        See :class:`free.SpeculativeSampler`.
    graph : bool, "compiled" or None
        Whether a transition is captured as a CUDA graph and replayed; see there.

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
        graph: Graphing = None,
    ) -> None:
        check_times(teacher, schedule)
        self.teacher = teacher
        self.schedule = schedule
        self.guidance = guidance_of(teacher, cfg_scale, cfg_channels)
        self._graphs = Graphs(graph)

    @explained_sampling
    @torch.no_grad()
    def sample(
        self,
        labels: Labels,
        seed: Seeds = 0,
        shape: Sequence[int] | None = None,
        progress: Progress = False,
        observer: Observer | None = None,
        trajectory: bool | str = False,
    ) -> SamplingResult:
        """Draw one sample per label; the arguments are those of ``SpeculativeSampler.sample``."""
        request = check_request(self.teacher, labels, seed, shape, self.schedule.start)
        y, seeds, x = request
        require_device(x.device, variance=self.schedule.mixture)
        plan = Plan(teacher=self.teacher, schedule=self.schedule, guidance=self.guidance)
        path = begin_trajectory(trajectory, x, self.schedule)
        drawn = self._graphs.draw(plan, request, progress, why_watched(observer, path))
        if not isinstance(drawn, str):
            return SamplingResult(*drawn)
        N = len(self.schedule)
        recorder = Recorder(N, seeds, f"eager: {drawn}")
        rounds = assemble(plan, len(y), x.device, width=1, phase=recorder.phase)
        with progress_bar(progress, N * len(y)) as report_progress:
            result = draw(
                rounds,
                rounds.begin(y, seeds, x),
                FixedWindows(1, N, None),
                recorder,
                progress=report_progress if progress else None,
                observer=observer,
                trajectory=path,
            )
        kept = None if path is None else path.trajectory
        return SamplingResult(result, recorder.finish(), kept)
