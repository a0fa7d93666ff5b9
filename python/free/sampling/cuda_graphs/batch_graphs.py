"""The graphs of batches of one size, and the loops that replay them."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from free.rounds.report import Recorder
from free.rounds.row_selection import EveryRow
from free.rounds.tensor_tree import map_tensors
from free.sampling.assembly import Plan, assemble
from free.sampling.cuda_graphs.capture import Capture
from free.sampling.cuda_graphs.graphed_round import (
    GraphedRound,
    State,
    Step,
    first_round,
    keep_samples,
    plain_step,
    window_round,
)

#: Plain transitions between two reports of progress.
_PROGRESS = 16

#: Told how many transitions were made; None if nobody asks.
Report = Callable[[int], object] | None


class BatchGraphs:
    """The graphs of batches of so many ``samples``, and the loops that replay them.

    ``plan`` has a fixed window; ``window`` are its rows, at most the transitions that there are. If
    ``compiled``, torch.compile makes fewer and larger kernels of a round before it is captured.
    """

    def __init__(
        self,
        plan: Plan,
        samples: int,
        device: torch.device,
        capture: Capture,
        compiled: bool = False,
    ) -> None:
        N = len(plan.schedule)
        self.window = min(plan.rule.largest, N)
        self.rows = EveryRow(samples, N, device)
        self.rounds = assemble(plan, samples, device, width=self.window, rows=self.rows)
        self._plan, self._capture, self._compiled = plan, capture, compiled
        self._sweeps = None if isinstance(plan.sweeps, str) else plan.sweeps
        self._first: GraphedRound | None = None
        self._graphs: dict[int, GraphedRound] = {}  # by how many samples they are for

    def draw(self, state: State, recorder: Recorder, report: Report) -> Tensor:
        """Samples [B, ...] from a state before its first round; to be checked with ``rows``."""
        self.rows.clear()
        if self.rounds.spending is not None:
            self.rounds.spending.clear()
        if self.rounds.leeway is not None:
            self.rounds.leeway.clear()
        draw = self._draw_plain if self.window == 1 else self._draw_windows
        return draw(state, recorder, report)

    def _draw_plain(self, state: State, recorder: Recorder, report: Report) -> Tensor:
        """Transition by transition; nothing is read back meanwhile."""
        graph = self._loaded(plain_step(self.rounds), state)
        N, B = len(self._plan.schedule), len(state.samples.k)
        for made in range(1, N + 1):
            graph.replay()
            if report is not None and made % _PROGRESS == 0:
                graph.steps()
                report(_PROGRESS * B)
        if report is not None:
            report(N % _PROGRESS * B)
        k = torch.arange(N, device="cpu").repeat_interleave(B)
        number = torch.arange(B, device="cpu").repeat(N)
        recorder.round(number, k, torch.ones_like(k), torch.zeros_like(k), rounds=N)
        return graph.state.samples.x.clone()

    def _draw_windows(self, state: State, recorder: Recorder, report: Report) -> Tensor:
        """In windows. The steps are read back only where the slowest sample may be done: not before
        as many rounds as it needs if every draft stands. So no round is made in vain.
        """
        W, N, sweeps = self.window, len(self._plan.schedule), self._sweeps
        calls = W - 1 if sweeps is None else min(sweeps, W - 1)
        if self._first is None:
            self._first = self._captured(first_round(self.rounds, W), state, repeats=False)
        self._first.load(state)
        self._first.replay()
        number, one = state.samples.number.cpu(), torch.ones_like(state.samples.k, device="cpu")
        made = self._first.after.samples.k.cpu() if self.rounds.blind else one
        recorder.round(number, 0 * one, (W if self.rounds.blind else 1) * one, made - 1)
        result = torch.empty_like(state.samples.x)
        state = State.begin(self._first.after.samples, N)
        left, reported, start = N - made, 0, 1
        while len(left):
            graph = self._loaded(window_round(self.rounds, W, sweeps), state)
            replays, smaller = 0, None
            while smaller is None:
                rounds = -(-int(left.max()) // W)
                for _ in range(rounds):
                    graph.replay()
                replays += rounds
                left = N - graph.steps()
                if report is not None:
                    total = N * len(result) - int(left.sum())
                    report(total - reported)
                    reported = total
                smaller = _smaller(left, shrinks=not self._compiled)
            samples, log = graph.state
            k, length, accepted = log[start : start + replays].movedim(1, 0).flatten(1).cpu()
            start += replays
            recorder.round(
                samples.number.cpu().repeat(replays),
                k,
                length,
                accepted,
                drafter_calls=replays * calls,
                rounds=replays,
            )
            recorder.kept(samples.past.bytes)
            result[samples.number] = samples.x
            left = left[smaller]
            if len(left):
                state = keep_samples(graph.state, smaller.to(result.device), W)
        return result

    def _loaded(self, step: Step, state: State) -> GraphedRound:
        """The graph for a batch of that size, which begins there."""
        size = len(state.samples.k)
        if size not in self._graphs:
            self._graphs[size] = self._captured(step, state)
        self._graphs[size].load(state)
        return self._graphs[size]

    def _captured(self, step: Step, state: State, repeats: bool = True) -> GraphedRound:
        """A graph; capturing makes rounds, which leave no trace."""
        spending = self.rounds.spending
        spent = spending and (spending.spent, spending.log_likelihood)
        leeway = self.rounds.leeway
        places = (self.rows.failed, spent, leeway and leeway.places)
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
