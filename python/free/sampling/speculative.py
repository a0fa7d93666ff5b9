"""The speculative sampler: the plain sampler's law in fewer teacher calls.

States are float32 and all randomness comes from the counter-based noise of
:mod:`free.rounds.noise`, so with a fixed window a sample depends on its own seed and label, not on
its batch.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from free.devices import require_device
from free.drafters.protocol import Drafter
from free.models.output import Teacher
from free.rounds.relaxation import Relaxation
from free.rounds.report import Recorder
from free.rounds.round import Rounds
from free.rounds.state import Samples
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
from free.sampling.settings import check_settings, largest_window
from free.schedule.schedule import Schedule
from free.window import Run, WindowRule


class SpeculativeSampler:
    """Draws from the plain sampler's law in fewer rounds (supplement, section B).

    A round drafts ``window - 1`` states, evaluates the teacher on them and on the current
    state in one call, keeps the longest prefix that the verifier accepts and repairs the next
    transition. It advances each sample by 1 to ``window`` transitions. What each
    part of a round may look at, so that the law stays the teacher's, is said where it is made:
    ``rounds.draft``, ``rounds.state``, ``rounds.draft_source``, ``ops.verify_window``.

    Parameters
    ----------
    teacher : callable
        ``teacher(x [R, ...], t [R], y [R]) -> TeacherOutput``; ``x`` float32, ``t`` of the
        schedule's ``timesteps`` and ``y`` int64. Rows must not depend on each other. May have
        ``sample_shape``, ``num_classes`` and ``null_label``; and ``capturable``, if it is no
        ``torch.nn.Module`` but may become part of a CUDA graph all the same.
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
    verifier : {"reflection", "block", "tolerance"}
        Whether drafts are judged one by one or together (:func:`free.ops.verify_window`). The
        latter keeps more of a window, but what is behind a rejection cannot be recycled.
        ``"tolerance"`` is for schedules without noise, and not exact: see ``tolerance``.
    sweeps : int, None or "auto"
        How a window is drafted: in this many drafter calls, each for the whole window, or, with
        None, in one call for each state (autoregression, the paper's way). With 0 the drafter is
        not asked: what the teacher said last stands for the whole window. ``"auto"`` is chosen with
        the window.
    recycle : bool or {"response", "reuse", "drafter"}
        Whether what the teacher said behind a rejection guides the next draft of the same
        transitions, and how (:mod:`free.rounds.draft_source`); True is the best measured, the
        response. A transition then has one noise, however often it is drafted. Needs a verifier
        that stops at the first rejection.
    relaxation : Relaxation or None
        Accept more where the teacher is unsure, at a distance from its law that the report bounds
        (``tv_bound``). None is exact.
    tolerance : float or None
        With ``verifier="tolerance"``, and only there: how far a state that follows from the
        teacher's answers may be from the one that the teacher saw, >= 0, as a root mean square over
        its elements, in units of ``sqrt(signal^2 + noise^2)``. The samples are near those of the
        plain sampler, 40 decibels or so for .01, and the report estimates how near
        (``deviation``); 0 is the plain sampler (docs/deterministic.md).
    graph : bool, "compiled" or None
        Whether whole rounds are captured as CUDA graphs and replayed, so that the host launches
        one thing a round and reads nothing back: None where that can be (docs/cuda.md), True to
        have an error where it cannot, ``"compiled"`` to have torch.compile make fewer kernels of a
        round first. The first run of a batch size takes seconds longer, compiled a minute. Weights
        must stay where they are.

    Raises
    ------
    ValueError
        If an argument is out of its range, or a transition before the last is deterministic (no
        noise, no coupling) and ``window`` is not 1 and the verifier not ``"tolerance"``, or the
        relaxation or the tolerance does not fit the schedule or the verifier.
    """

    def __init__(
        self,
        teacher: Teacher,
        drafter: Drafter | str | None,
        schedule: Schedule,
        window: int | str | WindowRule = 8,
        cfg_scale: float = 1.0,
        cfg_channels: int | None = None,
        *,
        verifier: str = "reflection",
        sweeps: int | str | None = None,
        recycle: bool | str = False,
        relaxation: Relaxation | None = None,
        tolerance: float | None = None,
        graph: Graphing = None,
    ) -> None:
        settings = check_settings(
            teacher,
            drafter,
            schedule,
            window=window,
            verifier=verifier,
            sweeps=sweeps,
            recycle=recycle,
            relaxation=relaxation,
            tolerance=tolerance,
        )
        self.teacher = teacher
        self.drafter = settings.drafter
        self.schedule = schedule
        self.window = int(window) if isinstance(window, (int, np.integer)) else window
        self.guidance = guidance_of(teacher, cfg_scale, cfg_channels)
        self.verifier = verifier
        self.sweeps = int(sweeps) if isinstance(sweeps, (int, np.integer)) else sweeps
        self.recycle = recycle
        self.relaxation = relaxation
        self.tolerance = None if tolerance is None else float(tolerance)
        self._rule = settings.rule
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
            the slowest sample has behind it. The states are the observer's to keep.
        trajectory : bool, "cpu" or "device"
            Whether all states and the log-densities of all transitions are kept: True and
            ``"device"`` where the states are, ``"cpu"`` in the host's memory
            (:class:`free.Trajectory` says how much). Not with a relaxation, nor in CUDA graphs.

        Returns
        -------
        SamplingResult
            ``samples [B, ...]``, the report, and the trajectory or None.

        Raises
        ------
        ValueError
            If the request is malformed, a network is on another device than the teacher, the window
            is wider than the CUDA kernels verify (256 rows), a relaxation needs a variance that the
            teacher lacks, or there is one and a trajectory is asked for.
        FloatingPointError
            If a network returns NaN or inf; names the step and the samples.
        torch.OutOfMemoryError
            If the GPU's memory is full; names the batch, the window and what would need less.
        """
        request = check_request(self.teacher, labels, seed, shape, self.schedule.start)
        y, seeds, x = request
        require_device(x.device, variance=self.schedule.mixture)
        plan = self._plan()
        width = largest_window(plan.rule, len(self.schedule), x.device)
        path = begin_trajectory(trajectory, x, self.schedule, self.relaxation)
        drawn = self._graphs.draw(plan, request, progress, why_watched(observer, path))
        if not isinstance(drawn, str):
            return SamplingResult(*drawn)
        recorder = Recorder(len(self.schedule), seeds, f"eager: {drawn}")
        rounds = assemble(plan, len(y), x.device, width=width, phase=recorder.phase)
        windows = plan.rule.begin(
            Run(
                model=self.teacher,
                target=rounds.target,
                guided=self.guidance is not None,
                drafter=rounds.drafter,
                owner=self.drafter,
                table=rounds.table,
                labels=y,
                seeds=seeds,
                state=x,
                sweeps=self.sweeps,
                verifier=self.verifier,
            )
        )
        if windows.learns and len(seeds.unique()) < len(seeds):
            # A sample ahead of another with its noise would tell that one's window about it.
            raise ValueError(
                "seed must not repeat in a batch whose windows learn, as with window='auto', "
                f"got {seeds.tolist()}"
            )
        with progress_bar(progress, len(self.schedule) * len(y)) as report_progress:
            result = draw(
                rounds,
                rounds.begin(y, seeds, x),
                windows,
                recorder,
                progress=report_progress if progress else None,
                observer=observer,
                trajectory=path,
            )
        if rounds.spending is not None:
            recorder.relaxed(rounds.spending.spent, rounds.spending.log_likelihood)
        if rounds.leeway is not None:
            recorder.deviated(rounds.leeway.estimate)
        kept = None if path is None else path.trajectory
        return SamplingResult(result, recorder.finish(), kept)

    def begin(
        self, labels: Labels, seed: Seeds = 0, shape: Sequence[int] | None = None
    ) -> tuple[Rounds, Samples]:
        """Begin a run whose loop is the caller's, who also calls the teacher.

        Parameters and errors are those of :meth:`sample`. Seeds of a batch whose widths are learned
        must be distinct. A relaxation or a tolerance is for the samples that begin here
        only: none may join.
        Returned are the steps of a round (``draft``, ``verify``, ``advance``), and the samples
        before their first.
        """
        y, seeds, x = check_request(self.teacher, labels, seed, shape, self.schedule.start)
        require_device(x.device, variance=self.schedule.mixture)
        plan = self._plan()
        width = largest_window(plan.rule, len(self.schedule), x.device)
        # Whoever calls the network gets both rows of guidance, also of one that could combine them.
        rounds = assemble(plan, len(y), x.device, width=width, combines=False)
        return rounds, rounds.begin(y, seeds, x)

    def _plan(self) -> Plan:
        return Plan(
            teacher=self.teacher,
            schedule=self.schedule,
            guidance=self.guidance,
            drafter=self.drafter,
            rule=self._rule,
            verifier=self.verifier,
            sweeps=self.sweeps,
            recycle=self.recycle,
            relaxation=self.relaxation,
            tolerance=self.tolerance,
        )
