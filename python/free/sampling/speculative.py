"""The speculative sampler: the plain sampler's law in fewer teacher calls.

States are float32 and all randomness comes from the counter-based noise of
:mod:`free.rounds.noise`, so with a fixed window a sample depends on its own seed and label, not on its
batch.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from free.devices import require_device
from free.drafters.protocol import Drafter, DraftingBatch
from free.models.output import Teacher
from free.rounds.relaxation import Relaxation, Spending
from free.rounds.report import Recorder
from free.rounds.round import Rounds
from free.rounds.row_selection import WantedRows
from free.rounds.state import UnderWay
from free.rounds.target import Target, guidance_of
from free.sampling.cuda_graphs import Graphing, Graphs, Way
from free.sampling.request import (
    Labels,
    Observer,
    Progress,
    SamplingResult,
    Seeds,
    check_request,
    explained_sampling,
    progress_bar,
)
from free.sampling.settings import check_settings, largest_window
from free.schedule.schedule import Schedule
from free.schedule.table import Prediction, Table
from free.window import Committed, FixedWindow, Run, WindowRule
from free.window.rule import check_choice

__all__ = ["SpeculativeSampler"]


class SpeculativeSampler:
    """Draws from the plain sampler's law in fewer rounds (supplement, section B).

    A round drafts ``window - 1`` states, evaluates the teacher on them and on the current
    state in one call, keeps the longest prefix that the verifier accepts and repairs the next
    transition. It advances each sample by 1 to ``window`` transitions. What each
    part of a round may look at, so that the law stays the teacher's, is said where it is made:
    ``rounds``, ``drafting``, ``recycling``, ``sources``, ``ops.verify_window``.

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
    verifier : {"reflection", "block"}
        Whether drafts are judged one by one or together (:func:`free.ops.verify_window`). The
        latter keeps more of a window, but what is behind a rejection cannot be recycled.
    sweeps : int, None or "auto"
        How a window is drafted: in this many drafter calls, each for the whole window, or, with
        None, in one call for each state (autoregression, the paper's way). ``"auto"`` is chosen
        with the window.
    recycle : bool or {"response", "control_variate", "reuse", "drafter"}
        Whether what the teacher said behind a rejection guides the next draft of the same
        transitions, and how (:mod:`free.rounds.draft_source`); True chooses by what has proved best. A
        transition then has one noise, however often it is drafted. Needs a verifier that stops at
        the first rejection.
    relaxation : Relaxation or None
        Accept more where the teacher is unsure, at a distance from its law that the report bounds
        (``tv_bound``). None is exact.
    graph : bool, "compiled" or None
        Whether whole rounds are captured as CUDA graphs and replayed, so that the host launches
        one thing a round and reads nothing back: None where that can be (docs/cuda.md), True to
        have an error where it cannot, ``"compiled"`` to have torch.compile make fewer kernels of a
        round first. The first run of a batch size takes seconds longer, compiled a minute. Weights
        must stay where they are.

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
        graph: Graphing = None,
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
            If the request is malformed, a network is on another device than the teacher, the window
            is wider than the CUDA kernels verify (256 rows), or a relaxation needs a variance that
            the teacher lacks.
        FloatingPointError
            If a network returns NaN or inf; names the step and the samples.
        torch.OutOfMemoryError
            If the GPU's memory is full; names the batch, the window and what would need less.
        """
        request = check_request(self.teacher, labels, seed, shape)
        device = request.state.device
        require_device(device, variance=self.schedule.mixture)
        largest = largest_window(self._windows, len(self.schedule), device)
        drawn = self._graphs.draw(self._way(), request, progress, observer is not None)
        if not isinstance(drawn, str):
            return SamplingResult(*drawn)
        y, seeds, x = request
        table, N = Table.of(self.schedule, x.device), len(self.schedule)
        recorder, prediction = Recorder(N, seeds, f"eager: {drawn}"), Prediction.of(table)
        drafts = prediction if largest > 1 else None
        target = Target(self.teacher, self.guidance, table, drafts)
        spending: Spending | None = None
        if self.relaxation is not None:
            spending = Spending(self.relaxation, self.schedule, len(y), x.device)
        if self.drafter is not None and largest > 1:
            self.drafter.begin(DraftingBatch(table, self.guidance))
        way = (self.verifier, self.recycle, largest, spending, WantedRows(), recorder.phase)
        rounds = Rounds(target, self.drafter, prediction, *way)
        guided = self.guidance is not None
        models = (self.teacher, target, guided, self.drafter, table, prediction)
        windows = self._windows.begin(Run(*models, y, seeds, x, self.sweeps, self.verifier))
        if windows.learns and len(seeds.unique()) < len(seeds):
            # A sample ahead of another with its noise would tell that one's window about it.
            raise ValueError(
                "seed must not repeat in a batch whose windows learn, as with window='auto', "
                f"got {seeds.tolist()}"
            )

        at = UnderWay.begin(y, seeds, x)  # the unfinished ones
        result = torch.empty_like(x)
        recorder.lap()
        with progress_bar(progress, N * len(y)) as report_progress:
            while len(at.samples):
                with recorder.phase("bookkeeping"):
                    known = None if at.past is None else at.past.known.cpu().numpy()
                    k = at.k.cpu().numpy()
                    choice = windows.choose(k, known)
                    check_choice(choice, N - k, 1 if known is None else largest)
                    plain = choice.plain or int(at.past is None)  # there is nothing to draft from
                if plain:
                    for stretch in range(plain):
                        if stretch and observer is not None:
                            result[at.samples] = at.x
                            observer(int(at.k.min()), result)
                        made = rounds.plain(at)
                        recorder.round(at.samples, at.k, made.length, made.accepted)
                        report_progress(len(at.samples))
                        at = made.now
                else:
                    length = torch.as_tensor(choice.lengths, dtype=torch.int64, device=x.device)
                    W = int(choice.lengths.max())
                    made = rounds.speculative(at, length, W, choice.sweeps, windows.learns)
                    counted = (made.length, made.accepted, made.drafter_calls)
                    recorder.round(at.samples, at.k, *counted)
                    report_progress(int(made.advance.sum()))
                with recorder.phase("bookkeeping"):
                    at = rounds.remember(made)
                    assert at.past is not None
                    recorder.kept(at.past.bytes)
                    result[at.samples] = at.x
                    going = at.k < N
                    at = at.keep(going)
                advance = made.advance + max(plain - 1, 0)
                windows.made(Committed.of(k, advance, made.deltas, recorder.lap(), going))
                if observer is not None:
                    observer(min(at.k.tolist(), default=N), result)
        if spending is not None:
            recorder.relaxed(spending.spent, spending.log_likelihood)
        return SamplingResult(result, recorder.finish())

    def _way(self) -> Way:
        """The arguments."""
        window = self._windows.largest if isinstance(self._windows, FixedWindow) else None
        sweeps = None if isinstance(self.sweeps, str) else self.sweeps
        drafting = (self.drafter, window, self.verifier, sweeps, self.recycle, self.relaxation)
        return Way(self.teacher, self.schedule, self.guidance, *drafting)
