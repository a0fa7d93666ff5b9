"""The graphs of a sampler, and why there are none."""

from __future__ import annotations

from threading import Lock

import torch
from torch import Tensor

from free.rounds.report import Recorder, Report
from free.sampling.assembly import Plan
from free.sampling.cuda_graphs.batch_graphs import BatchGraphs
from free.sampling.cuda_graphs.capture import Capture, CaptureError, CudaGraphs
from free.sampling.cuda_graphs.graphed_round import State
from free.sampling.request import Progress, Request, progress_bar
from free.window import FixedWindow

#: Whether rounds are captured: if they can be, for None, and after torch.compile, for "compiled".
Graphing = bool | str | None

#: How many batch sizes keep their graphs.
_SIZES = 4


class Graphs:
    """Graphs of a sampler's rounds, captured when first needed and kept.

    They hold the addresses of weights: whoever moves or replaces these makes a new sampler.
    ``graph`` is the samplers' argument; ``capture`` as for :class:`GraphedRound`.
    """

    def __init__(self, graph: Graphing = None, capture: Capture | None = None) -> None:
        if graph is not None and graph != "compiled" and not isinstance(graph, bool):
            raise ValueError(f"graph must be True, False, None or 'compiled', got {graph!r}")
        self._graph, self._capture = graph, capture or CudaGraphs()
        self._by_batch: dict[tuple[object, ...], BatchGraphs] = {}
        self._running = Lock()
        self._failed = ""

    def __reduce__(self) -> tuple[object, ...]:
        """Copies capture their own."""
        return Graphs, (self._graph,)

    def draw(
        self, plan: Plan, request: Request, progress: Progress, watched: str
    ) -> tuple[Tensor, Report] | str:
        """Samples ``[B, ...]`` and report, or why rounds are not replayed as graphs.

        ``watched`` says why every round must be seen, if it must.

        Raises ValueError if they must be and cannot, FloatingPointError if a network is not finite.
        """
        why = self._refusal(plan, request.state.device, watched)
        if not why:
            try:
                # What a graph keeps must serve whatever mode later runs are in.
                with self._running, torch.inference_mode(False), torch.no_grad():
                    return self._draw(plan, request, progress)
            except CaptureError as error:
                why = self._failed = str(error)
                self._by_batch.clear()
        if self._graph:
            raise ValueError(
                "graph must be False or None where rounds cannot be captured, "
                f"got {self._graph!r}: {why}"
            )
        return why

    def _refusal(self, plan: Plan, device: torch.device, watched: str) -> str:
        if self._graph is False:
            return "as asked"
        if isinstance(self._capture, CudaGraphs) and device.type != "cuda":
            return f"states are on {device}, not on a CUDA device"
        if torch.is_autocast_enabled(device.type):
            return "torch.autocast keeps weights of its own"
        if self._failed:
            return self._failed
        if watched:
            return watched
        if not isinstance(plan.rule, FixedWindow):
            return "windows are chosen anew in every round"
        if plan.schedule.mixture is not None:
            return "a variance of the state is checked in every round"
        relaxation = plan.relaxation
        if relaxation is not None and relaxation.uncertainty == "learned_variance":
            return "a learned variance is checked in every round"
        drafter = None if plan.rule.largest == 1 else plan.drafter
        for name, network in (("teacher", plan.teacher), ("drafter", drafter)):
            capturable = getattr(network, "capturable", None)
            if capturable is False:
                return f"the {name} runs outside of torch"
            known = capturable or network is None or isinstance(network, torch.nn.Module)
            if not known and self._graph is None:
                # What it does in Python, a graph would not do again.
                return f"the {name} is no torch.nn.Module; graph=True takes it for a function"
        return ""

    def _draw(self, plan: Plan, request: Request, progress: Progress) -> tuple[Tensor, Report]:
        y, seeds, x = request
        N = len(plan.schedule)
        recorder = Recorder(N, seeds, "graph")
        parts = (plan.teacher, plan.schedule, plan.guidance, plan.drafter, plan.relaxation)
        settings = (plan.rule.largest, plan.verifier, plan.tolerance, plan.sweeps, plan.recycle)
        key = (*map(id, parts), *settings, *x.shape, x.device)  # the graphs keep these parts
        graphs = self._by_batch.pop(key, None)
        if graphs is None:
            compiled = self._graph == "compiled"
            graphs = BatchGraphs(plan, len(y), x.device, self._capture, compiled)
        self._by_batch[key] = graphs  # the latest is the last
        if len(self._by_batch) > _SIZES:
            del self._by_batch[next(iter(self._by_batch))]
        state = State.begin(graphs.rounds.begin(y, seeds, x), 0)
        with progress_bar(progress, N * len(y)) as report_progress:
            result = graphs.draw(state, recorder, report_progress if progress else None)
        graphs.rows.check()
        if graphs.rounds.spending is not None:
            spending = graphs.rounds.spending
            recorder.relaxed(spending.spent, spending.log_likelihood)
        if graphs.rounds.leeway is not None:
            recorder.deviated(graphs.rounds.leeway.estimate)
        return result, recorder.finish()
