"""A round whose state has fixed places on the device, to be captured once and replayed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from free.rounds.round import Rounds
from free.rounds.state import Recycled, UnderWay
from free.rounds.tensor_tree import map_tensors, take
from free.sampling.cuda_graphs.capture import Capture

__all__ = ["GraphedRound", "State", "begun", "first", "kept", "plain", "speculative"]


class State(NamedTuple):
    """All that changes from round to round.

    Attributes
    ----------
    at : UnderWay
        Also those that have finished, with ``k = N``.
    log : Tensor or None, shape [N, 3, B], int64
        Of each round, counted from the first of all, the transitions before it, the rows evaluated
        (0 of finished samples) and the drafts accepted; None where there are no drafts.
    """

    at: UnderWay
    log: Tensor | None = None


Step = Callable[[State], State]


class GraphedRound:
    """A function of a state at a fixed place.

    Parameters
    ----------
    step : callable
        ``step(state) -> state``. Looks at no values. May write to tensors of its own that live
        as long as this.
    like : State
        Whose shapes, types and device the states have that it is given.
    capture : callable
        :class:`free.sampling.cuda_graphs.CudaGraphs`, or another that repeats a function.
    repeats : bool
        Whether what it returns, built like what it is given, is what it is given next.

    Raises
    ------
    CaptureError
        If it cannot be captured.

    Attributes
    ----------
    state : State
        What :meth:`replay` is given.
    after : State
        What it returned; its memory is used again by the next one.
    """

    after: State

    def __init__(self, step: Step, like: State, capture: Capture, repeats: bool = True) -> None:
        self.state: State = map_tensors(torch.clone, like)

        def work() -> None:
            self.after = step(self.state)
            if repeats:
                _copy(self.state, self.after)

        self._replay = capture(work, like.at.x.device)
        self._steps = torch.empty_like(like.at.k, device="cpu", pin_memory=like.at.k.is_cuda)

    def load(self, state: State) -> None:
        """Begin from another state."""
        _copy(self.state, state)

    def replay(self) -> None:
        """Make a round."""
        self._replay()

    def steps(self) -> Tensor:
        """Transitions behind each sample, [B] int64 on the CPU; waits for the rounds so far."""
        self._steps.copy_(self.state.at.k, non_blocking=True)
        if self.state.at.k.is_cuda:
            torch.cuda.current_stream(self.state.at.k.device).synchronize()
        return self._steps


def _copy(to: Any, source: Any) -> None:
    """All at once, a type at a time."""
    places: dict[torch.dtype, list[tuple[Tensor, Tensor]]] = {}

    def pair(place: Tensor, value: Tensor) -> Tensor:
        if place is not value:
            places.setdefault(place.dtype, []).append((place, value))
        return place

    map_tensors(pair, to, source)
    for pairs in places.values():
        torch._foreach_copy_([place for place, _ in pairs], [value for _, value in pairs])


def begun(at: UnderWay, steps: int) -> State:
    """With an empty log, for a schedule of ``steps``."""
    return State(at, at.k.new_zeros(steps, 3, len(at.k)))


def plain(rounds: Rounds) -> Step:
    """A transition of every sample; the last one again at the end, where capturing may get to."""
    N = len(rounds.prediction.sigma)

    def step(state: State) -> State:
        moving = state.at._replace(k=state.at.k.clamp(max=N - 1))
        return state._replace(at=rounds.transition(moving)[0])

    return step


def first(rounds: Rounds, W: int) -> Step:
    """The same, with its rows in the places where those of a window of ``W`` rows are."""

    def step(state: State) -> State:
        now = rounds.remember(rounds.plain(state.at))
        assert now.past is not None
        past = now.past._replace(row=now.past.row * W)
        every = torch.arange(len(now.k), device=now.k.device).repeat_interleave(W)
        return state._replace(at=now._replace(past=_rows(past, every)))

    return step


def speculative(rounds: Rounds, W: int, sweeps: int | None) -> Step:
    """A window of every sample that has not finished."""
    N = len(rounds.prediction.sigma)

    def step(state: State) -> State:
        at = state.at
        left = (N - at.k).clamp(max=W)
        made = rounds.speculative(at, left, W, sweeps)
        assert state.log is not None
        entry = torch.stack([at.k, left, made.accepted.long()])
        # There are no more rounds than transitions; capturing may make some that do not count.
        log = state.log.index_copy_(0, at.rounds[:1] % N, entry[None])
        now = rounds.remember(made, stride=W)
        going = (left > 0).view([-1] + [1] * (now.x.dim() - 1))
        return State(now._replace(x=torch.where(going, now.x, at.x)), log)

    return step


def kept(state: State, samples: Tensor, W: int) -> State:
    """Of these samples only; ``samples [B']`` are places in a batch between windows of ``W``."""
    at, device = state.at.keep(samples), samples.device
    assert at.past is not None
    assert state.log is not None
    moved = torch.arange(len(samples), device=device) - samples
    of = (samples[:, None] * W + torch.arange(W, device=device)).flatten()
    past = at.past._replace(row=at.past.row + W * moved[:, None])
    return begun(at._replace(past=_rows(past, of)), len(state.log))


def _rows(past: Recycled, rows: Tensor) -> Recycled:
    """With these rows of the teacher's call in place of all."""
    return past._replace(rows=take(past.rows, rows), guess=past.guess[rows])
