"""A round whose state has fixed places on the device, to be captured once and replayed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from free.rounds.round import Rounds
from free.rounds.state import Recycled, Samples
from free.rounds.tensor_tree import map_tensors, take
from free.sampling.cuda_graphs.capture import Capture


class State(NamedTuple):
    """All that changes from round to round.

    ``samples`` are also those that have finished, with ``k = N``. ``log [N, 3, B]``, int64, has of
    each round, counted from the first of all, the transitions before it, the rows evaluated (0 of
    finished samples) and the drafts accepted; [0, 3, B] where there are no drafts.
    """

    samples: Samples
    log: Tensor

    @classmethod
    def begin(cls, samples: Samples, rounds: int) -> State:
        """Samples with an empty log of so many rounds."""
        return cls(samples, samples.k.new_zeros(rounds, 3, len(samples.k)))


Step = Callable[[State], State]


class GraphedRound:
    """A function of a state at a fixed place.

    ``step(state) -> state`` looks at no values; it may write to tensors of its own that live as
    long as this. It is given states of the shapes, types and device of ``like``. ``capture`` is
    :class:`free.sampling.cuda_graphs.CudaGraphs`, or another that repeats a function; it raises
    CaptureError where it cannot. ``repeats``: what the step returns, built like what it is given,
    is what it is given next.

    :meth:`replay` makes ``after`` of ``state``; the next one uses its memory again.
    """

    after: State

    def __init__(self, step: Step, like: State, capture: Capture, repeats: bool = True) -> None:
        self.state: State = map_tensors(torch.clone, like)

        def work() -> None:
            self.after = step(self.state)
            if repeats:
                _copy(self.state, self.after)

        k = like.samples.k
        self._replay = capture(work, k.device)
        self._steps = torch.empty_like(k, device="cpu", pin_memory=k.is_cuda)

    def load(self, state: State) -> None:
        """Begin from another state."""
        _copy(self.state, state)

    def replay(self) -> None:
        """Make a round."""
        self._replay()

    def steps(self) -> Tensor:
        """Transitions behind each sample, [B] int64 on the CPU; waits for the rounds so far."""
        k = self.state.samples.k
        self._steps.copy_(k, non_blocking=True)
        if k.is_cuda:
            torch.cuda.current_stream(k.device).synchronize()
        return self._steps


def _copy(to: Any, source: Any) -> None:
    """All at once, a type at a time, those of 32 and 64 bits as words of 32; alone what lies
    otherwise in memory than its place, for which torch would take a launch for each of them all.
    """
    places: dict[torch.dtype, list[tuple[Tensor, Tensor]]] = {}

    def pair(place: Tensor, value: Tensor) -> Tensor:
        if place is value:
            return place
        if place.stride() != value.stride():
            return place.copy_(value)
        words = torch.int32 if place.element_size() >= 4 else place.dtype
        places.setdefault(words, []).append((place.view(words), value.view(words)))
        return place

    map_tensors(pair, to, source)
    for pairs in places.values():
        torch._foreach_copy_([place for place, _ in pairs], [value for _, value in pairs])


def plain_step(rounds: Rounds) -> Step:
    """A transition of every sample; the last one again at the end, where capturing may get to."""
    N = len(rounds.table.sigma)

    def step(state: State) -> State:
        samples = state.samples._replace(k=state.samples.k.clamp(max=N - 1))
        return state._replace(samples=_transition(rounds, samples))

    return step


def first_round(rounds: Rounds, W: int) -> Step:
    """A transition of every sample, with its rows where those of a window of ``W`` rows are; or a
    window, where that needs nothing to start from.
    """

    def blind(state: State) -> State:
        return state._replace(samples=_round(rounds, state.samples, W, None, None))

    def step(state: State) -> State:
        samples = _transition(rounds, state.samples)
        past = samples.past._replace(row=samples.past.row * W)
        every = torch.arange(len(samples.k), device=samples.k.device).repeat_interleave(W)
        return state._replace(samples=samples._replace(past=_with_rows(past, every)))

    return blind if rounds.blind else step


def _transition(rounds: Rounds, samples: Samples) -> Samples:
    """A round of one row."""
    window = rounds.draft(samples, 1, W=1)
    return rounds.advance(samples, rounds.verify(samples, window, rounds.teach(window)))


def window_round(rounds: Rounds, W: int, sweeps: int | None) -> Step:
    """A window of every sample that has not finished."""

    def step(state: State) -> State:
        # There are no more rounds than transitions; capturing may make some that do not count.
        return State(_round(rounds, state.samples, W, sweeps, state.log), state.log)

    return step


def _round(
    rounds: Rounds, samples: Samples, W: int, sweeps: int | None, log: Tensor | None
) -> Samples:
    """A round of windows of ``W`` rows."""
    window = rounds.draft(samples, W, sweeps, W)
    outcome = rounds.verify(samples, window, rounds.teach(window))
    return rounds.advance(samples, outcome, W, log)


def keep_samples(state: State, places: Tensor, W: int) -> State:
    """Select samples by their ``places [B']`` in a batch between windows of ``W`` rows; their log
    is empty.
    """
    samples, device = state.samples.keep(places), places.device
    moved = torch.arange(len(places), device=device) - places
    rows = (places[:, None] * W + torch.arange(W, device=device)).flatten()
    past = samples.past._replace(row=samples.past.row + W * moved[:, None])
    return State.begin(samples._replace(past=_with_rows(past, rows)), len(state.log))


def _with_rows(past: Recycled, rows: Tensor) -> Recycled:
    """These rows of the teacher's call in place of all."""
    return past._replace(
        rows=take(past.rows, rows), guess=past.guess[rows], start=take(past.start, rows)
    )
