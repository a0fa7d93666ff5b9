"""Samplers that share networks, in threads and one within the other, draw what each draws alone."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from typing import Any

import pytest
import torch
from torch import Tensor

from free import FrozenDrafter, SamplingResult, Schedule, SequentialSampler, SpeculativeSampler
from free.export.package import torch_engine
from free.rounds.state import Samples
from tests.exports import small_model

LABELS, SEED = [0, 7, 15], 2**40

#: Of four threads: the schedule, and guidance.
SETTINGS = ((40, 1.5), (25, 1.0), (33, 4.0), (40, 1.0))

Draw = Callable[..., SamplingResult]


def frozen(kind: str) -> tuple[Any, Any]:
    teacher, _ = small_model()
    return teacher, FrozenDrafter(kind)


#: Networks that samplers share.
NETWORKS = {
    "feature": small_model,
    "image": lambda: frozen("image"),
    "eps": lambda: frozen("eps"),
    "engine": lambda: torch_engine(*small_model(), 5, 1, max_batch=6),
}


@pytest.fixture(params=NETWORKS)
def draws(request: pytest.FixtureRequest) -> list[Draw]:
    """Of each setting, a sampler on the shared networks."""
    teacher, drafter = NETWORKS[request.param]()
    samplers = []
    for steps, scale in SETTINGS:
        options = {"window": 5, "sweeps": 1, "recycle": True, "cfg_scale": scale}
        schedule = Schedule.ddpm(steps, beta_end=4e-3)
        samplers.append(SpeculativeSampler(teacher, drafter, schedule, **options))
    # The plain sampler is another user of the teacher.
    samplers.append(SequentialSampler(teacher, Schedule.ddpm(20), cfg_scale=1.5))
    return [sampler.sample for sampler in samplers]


@pytest.fixture
def hurried() -> Iterator[None]:
    """Threads take turns as often as they can."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(interval)


def same(got: SamplingResult, expected: SamplingResult) -> None:
    assert torch.equal(got.samples, expected.samples)
    assert got.report.rounds_by_sample == expected.report.rounds_by_sample
    assert got.report.accepted == expected.report.accepted


@pytest.mark.usefixtures("hurried")
def test_threads_with_settings_of_their_own(draws: list[Draw]) -> None:
    alone = [draw(LABELS, SEED) for draw in draws]
    together = Barrier(len(draws))

    def again(draw: Draw) -> SamplingResult:
        together.wait()
        return draw(LABELS, SEED)

    with ThreadPoolExecutor(len(draws)) as pool:
        for got, expected in zip(pool.map(again, draws), alone, strict=True):
            same(got, expected)


def test_an_observer_that_draws(draws: list[Draw]) -> None:
    """A preview, say, with the networks of the run that it looks at."""
    outer, inner = draws[0](LABELS, SEED), draws[1](LABELS, SEED)
    previews: list[SamplingResult] = []

    def preview(made: int, states: Tensor) -> None:
        if len(previews) < 3:
            previews.append(draws[1](LABELS, SEED))

    same(draws[0](LABELS, SEED, observer=preview), outer)
    for drawn in previews:
        same(drawn, inner)
    assert len(previews) == 3


def test_loops_of_ones_own_side_by_side(draws: list[Draw]) -> None:
    """Round by round in turn: ``begin`` returns all that belongs to a run."""
    samplers = [draw.__self__ for draw in draws[:2]]  # type: ignore[attr-defined]

    def after(rounds_made: int, which: list[SpeculativeSampler]) -> list[Samples]:
        runs = [sampler.begin(LABELS, SEED) for sampler in which]
        states = [samples for _, samples in runs]
        for _ in range(rounds_made):
            for i, (sampler, (rounds, _)) in enumerate(zip(which, runs, strict=True)):
                window = rounds.draft(states[i], 5)
                output = sampler.teacher(window.x, window.t, window.y)
                states[i] = rounds.advance(states[i], rounds.verify(states[i], window, output))
        return states

    together = after(3, samplers)
    for sampler, samples in zip(samplers, together, strict=True):
        (alone,) = after(3, [sampler])
        assert torch.equal(samples.x, alone.x)
        assert torch.equal(samples.k, alone.k)
