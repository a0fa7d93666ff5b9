"""Rounds as CUDA graphs: the same runs, the same law, nothing read back, nothing left behind."""

import threading
from typing import Any

import pytest
import torch
from torch import Tensor

from free import (
    DiT,
    FeatureDrafter,
    SamplingResult,
    Schedule,
    SequentialSampler,
    SpeculativeSampler,
    load_pretrained,
)
from free.reference.draft import SOURCES
from free.sampling.cuda_graphs.graphed_round import GraphedRound
from tests.law.paths import margins_p
from tests.networks import CallableDrafter, MixtureTeacher

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")

LABELS = [3, 1, 4, 1, 5]
SCHEDULE = Schedule.ddpm(50)


class OnDevice(MixtureTeacher):
    """The mixture, where it is asked."""

    def __init__(self, shift: float = 0.0) -> None:
        super().__init__(2, shift=shift)
        self.modes, self.abar = self.modes.cuda(), self.abar.cuda()
        self.device = torch.device("cuda")

    def __call__(self, x: Tensor, t: Tensor, y: Tensor) -> Any:
        with torch.device(x.device):
            return super().__call__(x, t, y)


class Guessing(CallableDrafter):
    def predict(self, x: Tensor, k: Tensor, y: Tensor, carry: Any) -> Any:
        return self.guess(x, self.table.timesteps[k], y).eps, carry


@pytest.fixture(scope="module")
def models() -> tuple[DiT, FeatureDrafter]:
    teacher, drafter = load_pretrained("mnist", device="cuda")
    assert isinstance(drafter, FeatureDrafter)
    return teacher, drafter


def same(actual: SamplingResult, expected: SamplingResult) -> None:
    """Up to decisions that rounding has flipped, after which noises differ: in one sample."""
    difference = (actual.samples.cpu() - expected.samples.cpu()).flatten(1).abs().amax(1)
    assert difference.sort().values[:-1].max() < 1e-2


@pytest.mark.parametrize(
    ("recycle", "sweeps"),
    [(False, None), (False, 1), (True, 2), *zip(SOURCES, (1, 2, None), strict=True)],
)
def test_runs_are_those_without_graphs(models, recycle, sweeps) -> None:
    options: dict[str, Any] = {"sweeps": sweeps, "recycle": recycle}
    made, eager = (
        SpeculativeSampler(*models, SCHEDULE, 8, 1.5, graph=graph, **options).sample(LABELS, 7)
        for graph in (True, False)
    )
    assert made.report.execution == "graph"
    same(made, eager)


def test_the_plain_samplers_and_the_cpus(models: tuple[DiT, FeatureDrafter]) -> None:
    teacher, drafter = load_pretrained("mnist")
    for make in (
        lambda t, d, **o: SequentialSampler(t, SCHEDULE, 1.5, **o),
        lambda t, d, **o: SpeculativeSampler(t, d, SCHEDULE, 8, 1.5, sweeps=1, **o),
    ):
        expected = make(teacher, drafter).sample(LABELS, 7)
        same(make(*models, graph=True).sample(LABELS, 7), expected)
        same(make(*models, graph=False).sample(LABELS, 7), expected)


@pytest.mark.parametrize("recycle", [False, "response"])
def test_the_law_is_the_plain_samplers(recycle: bool | str) -> None:
    schedule, labels = Schedule.ddpm(20), torch.arange(20_000) % 2
    drafter = Guessing(OnDevice(shift=0.2))
    sampler = SpeculativeSampler(
        OnDevice(), drafter, schedule, 6, sweeps=1, recycle=recycle, graph=True
    )
    made = sampler.sample(labels, 0)
    assert 0.2 < made.report.acceptance < 0.98
    plain = SequentialSampler(MixtureTeacher(2), schedule).sample(labels, 10**6)
    assert margins_p(made.samples.cpu(), plain.samples) > 1e-4
    displaced = made.samples.cpu() + 0.05
    assert margins_p(displaced, plain.samples) < 1e-6  # what it can tell


def test_rounds_read_nothing_back(models, monkeypatch) -> None:
    """From the first replay on torch may wait only where the steps are read."""
    replay, steps = GraphedRound.replay, GraphedRound.steps
    monkeypatch.setattr(
        GraphedRound, "replay", lambda self: (replay(self), torch.cuda.set_sync_debug_mode("error"))
    )

    def read(self: GraphedRound) -> Tensor:
        torch.cuda.set_sync_debug_mode("default")
        return steps(self)

    monkeypatch.setattr(GraphedRound, "steps", read)
    sampler = SpeculativeSampler(*models, SCHEDULE, 8, 1.5, sweeps=1, graph=True)
    try:
        assert sampler.sample([0], 7).samples.isfinite().all()
        torch.cuda.set_sync_debug_mode("error")
        with pytest.raises(RuntimeError, match="synchroniz"):  # it does look
            torch.ones(1, device="cuda").item()
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_memory_stays_flat_over_10_000_rounds(models: tuple[DiT, FeatureDrafter]) -> None:
    sampler = SpeculativeSampler(
        *models, SCHEDULE, 8, 1.5, sweeps=1, recycle="response", graph=True
    )
    sampler.sample([0], 0)
    torch.cuda.synchronize()
    before, rounds, seed = torch.cuda.memory_allocated(), 0, 0
    while rounds < 10_000:
        seed += 1
        rounds += sampler.sample([0], seed).report.rounds
    torch.cuda.synchronize()
    assert torch.cuda.memory_allocated() == before


def test_two_samplers_on_two_streams_in_two_threads(models: tuple[DiT, FeatureDrafter]) -> None:
    made: dict[int, list[Tensor]] = {0: [], 1: []}

    def sampler(width: int) -> SpeculativeSampler:
        _, drafter = load_pretrained("mnist", device="cuda")  # a drafter serves one run at a time
        return SpeculativeSampler(models[0], drafter, SCHEDULE, width, 1.5, sweeps=1, graph=True)

    def work(which: int) -> None:
        with torch.cuda.stream(torch.cuda.Stream()):
            own = sampler(4 + 4 * which)
            made[which] += [own.sample(LABELS, seed).samples.cpu() for seed in range(10)]

    threads = [threading.Thread(target=work, args=(which,)) for which in made]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for which, results in made.items():
        alone = sampler(4 + 4 * which)
        for seed, result in enumerate(results):
            torch.testing.assert_close(result, alone.sample(LABELS, seed).samples.cpu())
    assert all(len(results) == 10 for results in made.values())
