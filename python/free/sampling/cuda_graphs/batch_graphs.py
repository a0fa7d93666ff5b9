"""The graphs of batches of one size, and the loops that replay them."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext

import torch
from torch import Tensor

from free.drafters.protocol import DraftingBatch
from free.rounds.relaxation import Spending
from free.rounds.report import Recorder
from free.rounds.round import Rounds
from free.rounds.row_selection import EveryRow
from free.rounds.target import Target
from free.rounds.tensor_tree import map_tensors
from free.sampling.assembly import Way
from free.sampling.cuda_graphs.capture import Capture
from free.sampling.cuda_graphs.graphed_round import (
    GraphedRound,
    State,
    Step,
    begun,
    first,
    kept,
    plain,
    speculative,
)
from free.schedule.table import Prediction, Table

__all__ = [
    "Stage",
]

#: Plain transitions between two reports of progress.
_PROGRESS = 16

#: Told how many transitions were made; None if nobody asks.
Report = Callable[[int], object] | None


class Stage:
    """What the graphs of batches of one size share.

    Parameters
    ----------
    way : Way
        With a ``window``.
    samples : int
        B.
    device : torch.device
    capture : callable
    compiled : bool
        Whether torch.compile makes fewer and larger kernels of a round before it is captured.

    Attributes
    ----------
    window : int
        Rows of a window, at most the transitions that there are.
    rows : EveryRow
    spending : Spending or None
    """

    def __init__(
        self,
        way: Way,
        samples: int,
        device: torch.device,
        capture: Capture,
        compiled: bool = False,
    ) -> None:
        assert way.window is not None
        table = Table.of(way.schedule, device)
        self.window = W = min(way.window, len(way.schedule))
        self.rows = EveryRow(samples, len(way.schedule), device)
        self.spending: Spending | None = None
        if way.relaxation is not None:
            self.spending = Spending(way.relaxation, way.schedule, samples, device)
        prediction = Prediction.of(table)
        drafts = prediction if W > 1 else None
        target = Target(way.teacher, way.guidance, table, drafts)
        drawing = (way.verifier, way.recycle, W, self.spending, self.rows)
        self._rounds = Rounds(target, way.drafter, prediction, *drawing, lambda _: nullcontext())
        self._way, self._capture, self._compiled = way, capture, compiled
        self._batch = DraftingBatch(table, way.guidance)
        self._first: GraphedRound | None = None
        self._graphs: dict[int, GraphedRound] = {}  # by how many samples they are for

    def begin(self) -> None:
        """Forget the last run."""
        self.rows.clear()
        if self.spending is not None:
            self.spending.clear()
        if self._way.drafter is not None and self.window > 1:
            self._way.drafter.begin(self._batch)

    def plain(self, state: State, recorder: Recorder, report: Report) -> Tensor:
        """Samples [B, ...], transition by transition; nothing is read back meanwhile."""
        graph = self._loaded(plain(self._rounds), state)
        N, B = len(self._way.schedule), len(state.at.k)
        for made in range(1, N + 1):
            graph.replay()
            if report is not None and made % _PROGRESS == 0:
                graph.steps()
                report(_PROGRESS * B)
        if report is not None:
            report(N % _PROGRESS * B)
        k, samples = torch.arange(N).repeat_interleave(B), torch.arange(B).repeat(N)
        recorder.round(samples, k, torch.ones_like(k), torch.zeros_like(k), rounds=N)
        return graph.state.at.x.clone()

    def speculative(self, state: State, recorder: Recorder, report: Report) -> Tensor:
        """Samples [B, ...] in windows.

        The steps are read back only where the slowest sample may be done: not before as many
        rounds as it needs if every draft stands. So no round is made in vain.
        """
        W, N, sweeps = self.window, len(self._way.schedule), self._way.sweeps
        calls = W - 1 if sweeps is None else min(sweeps, W - 1)
        if self._first is None:
            self._first = self._captured(first(self._rounds, W), state, repeats=False)
        self._first.load(state)
        self._first.replay()
        samples, one = torch.arange(len(state.at.k)), torch.ones_like(state.at.k, device="cpu")
        recorder.round(samples, 0 * one, one, 0 * one)
        result, state = torch.empty_like(state.at.x), begun(self._first.after.at, N)
        left, told, start = (N - 1) * one, 0, 1
        while len(left):
            graph = self._loaded(speculative(self._rounds, W, sweeps), state)
            made, smaller = 0, None
            while smaller is None:
                rounds = -(-int(left.max()) // W)
                for _ in range(rounds):
                    graph.replay()
                made += rounds
                left = N - graph.steps()
                if report is not None:
                    total = N * len(result) - int(left.sum())
                    report(total - told)
                    told = total
                smaller = _smaller(left, shrinks=not self._compiled)
            at, log = graph.state.at, graph.state.log
            assert log is not None
            k, length, accepted = log[start : start + made].movedim(1, 0).flatten(1).cpu()
            start += made
            columns = (at.samples.cpu().repeat(made), k, length, accepted)
            recorder.round(*columns, made * calls, made)
            recorder.kept(at.past.bytes)  # type: ignore[union-attr]
            result[at.samples] = at.x
            left = left[smaller]
            if len(left):
                state = kept(graph.state, smaller.to(result.device), W)
        return result

    def _loaded(self, step: Step, state: State) -> GraphedRound:
        """The graph for a batch of that size, which begins there."""
        size = len(state.at.k)
        if size not in self._graphs:
            self._graphs[size] = self._captured(step, state)
        self._graphs[size].load(state)
        return self._graphs[size]

    def _captured(self, step: Step, state: State, repeats: bool = True) -> GraphedRound:
        """A graph; capturing makes rounds, which leave no trace."""
        spent = self.spending and (self.spending.spent, self.spending.log_likelihood)
        places = (self.rows.failed, spent)
        before = map_tensors(torch.clone, places)
        if self._compiled:
            step = torch.compile(step, fullgraph=True, dynamic=False)
        # Each size is a compilation of its own: dynamo's limit is meant for others.
        with torch._dynamo.config.patch(recompile_limit=10**6, accumulated_recompile_limit=10**6):
            graph = GraphedRound(step, state, self._capture, repeats)
        map_tensors(Tensor.copy_, places, before)
        return graph


def _smaller(left: Tensor, shrinks: bool) -> Tensor | None:
    """Which samples go on in a smaller batch, at most half of this one; None if too many do.

    Those that have transitions ``left [B]`` come first, then finished ones up to a power of two.
    None go on if all have finished; where a batch never ``shrinks``, it goes on until then.
    """
    going = int((left > 0).sum())
    if going and not shrinks:
        return None
    size = 1 << (going - 1).bit_length() if going else 0
    return (left == 0).long().argsort(stable=True)[:size] if 2 * size <= len(left) else None
