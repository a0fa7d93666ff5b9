"""Samplers of the benchmark, and one way to run them to the end of the device's work."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from free import DiT, Schedule, SequentialSampler, SpeculativeSampler
from free.bench.timing import Timing, timed
from free.drafters import FeatureDrafter
from free.rounds.report import Report
from free.sampling.cuda_graphs import Graphing
from on_gpu.clock import Clock

Sampler = SequentialSampler | SpeculativeSampler


def sampler_of(
    teacher: DiT,
    drafter: FeatureDrafter,
    schedule: Schedule,
    guidance: tuple[float, int | None],
    window: int,
    sweeps: int | None = None,
    graph: Graphing = None,
) -> Sampler:
    """A window of 1 is the plain sampler; sweeps recycle, autoregression is the paper's.

    ``graph`` is the sampler's.
    """
    if window == 1:
        return SequentialSampler(teacher, schedule, *guidance, graph=graph)
    return SpeculativeSampler(
        teacher,
        drafter,
        schedule,
        window,
        *guidance,
        sweeps=sweeps,
        recycle=False if sweeps is None else "response",
        graph=graph,
    )


class Draws:
    """Called, it draws a batch and waits for it: the same seeds in every sampler."""

    def __init__(self, sampler: Sampler, batch: int, classes: int, clock: Clock) -> None:
        self.sampler = sampler
        self.reports: list[Report] = []
        self._labels = [i % classes for i in range(batch)]
        self._clock = clock

    def __call__(self) -> None:
        """Draw the next batch."""
        seed = 1000 + len(self.reports) * len(self._labels)
        self.reports.append(self.sampler.sample(self._labels, seed).report)
        self._clock.synchronize()


def interleaved(draws: dict[str, Draws], repeats: int) -> dict[str, tuple[Timing, Report]]:
    """Seconds a batch of samplers that were called once before, in turn, and what they did."""
    for draw in draws.values():
        draw.reports.clear()
    functions: dict[str, Callable[[], Any]] = dict(draws)
    timings = timed(functions, repeats, warmup=0, attempts=2)
    return {name: (timings[name], Report.merge(draw.reports)) for name, draw in draws.items()}
