"""The loop: rounds until every sample is done, as wide as a rule of windows says."""

from __future__ import annotations

from collections.abc import Callable, Generator

import numpy as np
import torch
from torch import Tensor

from free.models.output import TeacherOutput
from free.rounds.report import Recorder
from free.rounds.round import Rounds, committed_deltas
from free.rounds.state import Samples, Window
from free.rounds.trajectory import TrajectoryRecorder
from free.sampling.request import Observer
from free.window import Committed, Windows
from free.window.rule import check_choice


def draw(
    rounds: Rounds,
    samples: Samples,
    windows: Windows,
    recorder: Recorder,
    *,
    progress: Callable[[int], object] | None,
    observer: Observer | None,
    trajectory: TrajectoryRecorder | None,
) -> Tensor:
    """Draw samples ``[B, ...]`` with the run's own teacher; parameters are :func:`drawing`'s."""
    loop = drawing(
        rounds,
        samples,
        windows,
        recorder,
        progress=progress,
        observer=observer,
        trajectory=trajectory,
    )
    window = next(loop)
    while True:
        try:
            window = loop.send(rounds.teach(window))
        except StopIteration as finished:
            return finished.value


def drawing(
    rounds: Rounds,
    samples: Samples,
    windows: Windows,
    recorder: Recorder,
    *,
    progress: Callable[[int], object] | None,
    observer: Observer | None,
    trajectory: TrajectoryRecorder | None = None,
) -> Generator[Window, TeacherOutput, Tensor]:
    """The loop without its teacher: yields windows, is sent what the teacher says of their rows.

    Samples go each at its own pace; finished ones leave. Returned are all of them, ``[B, ...]``.
    At the beginning they are before their first round, numbered ``0 .. B - 1``, and the drafter of
    ``rounds`` has begun. ``windows`` says how wide each round is. ``progress`` is told how many
    transitions a round made; for ``observer`` see :meth:`free.SpeculativeSampler.sample`.
    ``trajectory`` is told of every round.
    """
    N, result = len(rounds.table.sigma), torch.empty_like(samples.x)
    k, known = samples.k.cpu().numpy(), None
    if rounds.blind:  # as if the teacher had seen the transition before
        known = np.ones_like(k)
    recorder.lap()
    while len(k):
        with recorder.phase("bookkeeping"):
            choice = windows.choose(k, known)
            check_choice(choice, N - k, 1 if known is None else rounds.width)
            lengths = np.asarray(choice.lengths, dtype=np.int64)
            W = int(np.maximum.reduce(lengths))
            widths = 1 if W == 1 else torch.from_numpy(lengths).to(result.device)
        for left in range(max(choice.plain, 1) - 1, -1, -1):  # plain transitions are of one row
            window = rounds.draft(samples, widths, choice.sweeps, W)
            output = yield window
            outcome = rounds.verify(samples, window, output)
            recorder.round(
                samples.number,
                samples.k,
                window.length,
                outcome.accepted,
                drafter_calls=window.draft.calls,
            )
            if trajectory is not None:
                with recorder.phase("bookkeeping"):
                    trajectory.record(samples.number, outcome)
            samples = rounds.advance(samples, outcome)
            if progress is not None:
                progress(int(outcome.advance.sum()))
            if observer is not None and left:
                result = result.clone()  # so that an observer may keep what it was shown
                result[samples.number] = samples.x
                observer(int(samples.k.min()), result)
        with recorder.phase("bookkeeping"):
            recorder.kept(samples.past.bytes)
            before, k = k, samples.k.cpu().numpy()
            going, advance = k < N, k - before
            leave = not np.logical_and.reduce(going)
            deltas = committed_deltas(outcome) if windows.learns and W > 1 else None
            if observer is not None:
                result = result.clone()
            if observer is not None or leave:
                result[samples.number] = samples.x
            if leave:
                samples = samples.keep(torch.from_numpy(going).to(result.device))
                k = k[going]
            known = np.maximum(samples.past.known.cpu().numpy(), 1)
        windows.made(Committed.of(before, advance, deltas, recorder.lap(), going))
        if observer is not None:
            observer(int(k.min(initial=N)), result)
    return result
