"""Runs of captured rounds, with a capture that calls the function again: all but CUDA's own part.

What CUDA does with the same rounds is tested in ``tests/gpu/test_graphs.py``.
"""

import copy
import dataclasses
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import free.sampling.cuda_graphs.batch_graphs
from free import (
    DiT,
    DiTConfig,
    DrafterNet,
    FeatureDrafter,
    Relaxation,
    Schedule,
    SequentialSampler,
    SpeculativeSampler,
    load_pretrained,
)
from free.rounds.row_selection import EveryRow
from free.sampling.cuda_graphs import Graphs
from free.sampling.cuda_graphs.graphed_round import GraphedRound, State, first_round, window_round
from free.schedule.clipping import Clipping
from tests.networks import MixtureTeacher, randomized
from tests.sampling.cuda_graphs.captures import (
    LABELS,
    SCHEDULE,
    SEEDS,
    TEACHER,
    Guessing,
    Uneven,
    graphed,
    repeated,
    same,
    sampler,
)

#: A few of class 1 take much longer.
SHRINKING = [0, 0, 1, 0, 0, 0, 1, 0, 0, 0]

# --- the same runs -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options",
    [
        {"recycle": False, "sweeps": None},
        {"recycle": False, "sweeps": 2, "verifier": "block"},
        {"recycle": True, "sweeps": 1},
        {"recycle": "response", "sweeps": None},
        {"recycle": "reuse", "sweeps": 2},
        {"recycle": "drafter", "sweeps": 1},
        {"recycle": "response", "sweeps": 1, "window": 2},
        {"recycle": "response", "sweeps": 1, "window": 29},
        {"recycle": "reuse", "sweeps": 1, "window": 64},
    ],
    ids=str,
)
@pytest.mark.parametrize("batch", [1, 5])
def test_runs_are_those_without_graphs(batch: int, options: dict[str, Any]) -> None:
    labels, seeds = LABELS[:batch], SEEDS[:batch]
    expected = sampler(cfg_scale=1.5, **options).sample(labels, seeds)
    assert 0 < expected.report.acceptance < 1
    same(graphed(sampler(cfg_scale=1.5, **options)).sample(labels, seeds), expected)


@pytest.mark.parametrize(
    ("batch", "window", "recycle"), [(1, 8, True), (5, 8, True), (5, 64, False)]
)
def test_runs_within_a_tolerance(batch: int, window: int, recycle: bool) -> None:
    options: dict[str, Any] = {"verifier": "tolerance", "tolerance": 0.01, "recycle": recycle}
    silent = Schedule.ddpm(30, stochasticity=0.0)
    made = SpeculativeSampler(TEACHER, Guessing(TEACHER), silent, window, sweeps=1, **options)
    labels, seeds = LABELS[:batch], SEEDS[:batch]
    expected = made.sample(labels, seeds)
    assert 0 < expected.report.acceptance < 1
    for _ in range(2):  # the second finds the first one's estimates
        actual = graphed(made).sample(labels, seeds)
        same(actual, expected)
        assert actual.report.deviation_by_sample == pytest.approx(
            expected.report.deviation_by_sample,
            rel=0.3,  # of changes near rounding
        )


@pytest.mark.parametrize(("steps", "window"), [(2, 1), (2, 5), (3, 2)])
def test_the_shortest_schedules(steps: int, window: int) -> None:
    made = SpeculativeSampler(TEACHER, Guessing(TEACHER), Schedule.ddpm(steps), window, sweeps=1)
    expected = made.sample(LABELS, SEEDS)
    same(graphed(made).sample(LABELS, SEEDS), expected)


def test_the_plain_sampler() -> None:
    for cfg_scale in (1.0, 1.5):
        plain = SequentialSampler(TEACHER, SCHEDULE, cfg_scale)
        expected = plain.sample(LABELS, SEEDS)
        for made in (plain, sampler(window=1, cfg_scale=cfg_scale)):
            same(graphed(made).sample(LABELS, SEEDS), expected)


def test_a_network_with_features() -> None:
    config = DiTConfig(8, 4, 4, 32, 2, 2, num_classes=3)
    teacher = randomized(DiT(config))
    drafter = FeatureDrafter(randomized(DrafterNet(config), 1), teacher)
    for options in ({}, {"sweeps": 1, "recycle": True}):
        made = SpeculativeSampler(teacher, drafter, Schedule.ddpm(12), 6, 1.5, 3, **options)
        expected = made.sample([0, 1, 2], 5)
        same(graphed(made).sample([0, 1, 2], 5), expected)


def test_the_relaxed_rule_and_its_certificate() -> None:
    options: dict[str, Any] = {"sweeps": 1, "relaxation": Relaxation("allow", 0.3, tv_budget=0.5)}
    expected = sampler(Uneven(), **options).sample(LABELS, SEEDS)
    assert expected.report.tv_bound > 0
    again = graphed(sampler(Uneven(), **options))
    for _ in range(2):  # nothing is left of the first run
        made = again.sample(LABELS, SEEDS)
        same(made, expected)
        assert made.report.tv_bound_by_sample == pytest.approx(expected.report.tv_bound_by_sample)
        assert made.report.tv_estimate == pytest.approx(expected.report.tv_estimate)


def test_runs_of_one_sampler_follow_each_other() -> None:
    """Also in and outside of inference mode; one that is changed captures anew."""
    options: dict[str, Any] = {"sweeps": 1, "recycle": "response"}
    one, other = graphed(sampler(**options)), sampler(**options)
    for labels, seed in (([0, 1], 3), ([1, 1], 4), ([0], 5), ([0, 1], 3)):
        same(one.sample(labels, seed), other.sample(labels, seed))
    with torch.inference_mode():
        inside = one.sample([0, 1, 2], 3)
    same(inside, other.sample([0, 1, 2], 3))
    same(one.sample([0, 1, 2], 3), other.sample([0, 1, 2], 3))
    one.teacher, one.schedule = MixtureTeacher(4, shift=0.3), Schedule.ddpm(20)
    changed = SpeculativeSampler(one.teacher, one.drafter, one.schedule, 8, **options)
    same(one.sample([0, 1], 3), changed.sample([0, 1], 3))


def test_copies_capture_their_own() -> None:
    made = graphed(sampler(sweeps=1))
    made.sample([0, 1], 3)
    copied = copy.deepcopy(made)
    assert copied._graphs._by_batch == {}
    assert copied._graphs._graph is True


def test_threads_take_turns() -> None:
    one, other = graphed(sampler(sweeps=1)), sampler(sweeps=1)
    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(lambda seed: one.sample([0, 1], seed), range(4)))
    for seed, result in enumerate(results):
        same(result, other.sample([0, 1], seed))


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # torch.compile's own
@torch.no_grad()
def test_a_round_is_traced_as_a_whole() -> None:
    """With the trained drafter; what is made of the trace is for a slow test."""
    teacher, drafter = load_pretrained("mnist")
    settings = {**drafter.sampling, "window": 3}
    made = SpeculativeSampler(teacher, drafter, SCHEDULE, cfg_scale=1.5, **settings)
    rounds, samples = made.begin([0, 1], 5)
    rounds = dataclasses.replace(rounds, rows=EveryRow(2, len(SCHEDULE), torch.device("cpu")))
    state = first_round(rounds, 3)(State.begin(samples, len(SCHEDULE)))
    step = window_round(rounds, 3, 1)
    traced = torch.compile(step, fullgraph=True, dynamic=False, backend="eager")
    own, other = traced(state).samples, step(state).samples
    torch.testing.assert_close(own.x, other.x)
    assert torch.equal(own.k, other.k)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # torch.compile's own
def test_compiled_rounds() -> None:
    """Rounds are traced as a whole, or there would be an error."""
    config = DiTConfig(4, 4, 4, 16, 1, 2, num_classes=3)
    teacher = randomized(DiT(config))
    drafter = FeatureDrafter(randomized(DrafterNet(config), 1), teacher)
    for made in (
        SpeculativeSampler(teacher, drafter, SCHEDULE, 4, 1.5, sweeps=1, recycle="response"),
        SequentialSampler(teacher, SCHEDULE, 1.5),
    ):
        made._graphs = Graphs(False)
        expected = made.sample([0, 1], 5)
        made._graphs = Graphs("compiled", repeated)
        same(made.sample([0, 1], 5), expected)


# --- what a round costs the host -----------------------------------------------------------------


def test_no_round_is_made_in_vain_and_few_are_read_back(monkeypatch: pytest.MonkeyPatch) -> None:
    reads, steps = [], GraphedRound.steps
    monkeypatch.setattr(GraphedRound, "steps", lambda self: (reads.append(0), steps(self))[1])
    report = graphed(sampler(window=4, sweeps=1)).sample(LABELS, SEEDS).report
    assert report.rounds == max(report.rounds_by_sample)
    assert len(reads) <= report.rounds // 2


def with_history() -> Schedule:
    """A law of clipped images, each with a share of the image before."""
    betas = np.linspace(1e-4, 2e-2, 1000)
    plain = Schedule.from_betas(betas, SCHEDULE.timesteps, clipping=Clipping(2.0))
    c = -0.2 * plain.b
    c[0] = 0.0
    return dataclasses.replace(plain, b=plain.b - c, c=c)


@pytest.mark.parametrize("law", [SCHEDULE, with_history()], ids=["plain", "history"])
@pytest.mark.parametrize("recycle", [False, "response"])
def test_a_batch_that_has_shrunk_goes_on_in_a_smaller_graph(recycle, law, monkeypatch) -> None:
    made = sampler(Uneven(), sweeps=1, recycle=recycle)
    made.schedule = law
    expected = made.sample(SHRINKING, 3)
    sizes: list[int] = []
    load = GraphedRound.load

    def kept(self: GraphedRound, state: State) -> None:
        sizes.append(len(state.samples.k))
        load(self, state)

    monkeypatch.setattr(GraphedRound, "load", kept)
    same(graphed(made).sample(SHRINKING, 3), expected)
    assert sizes[:2] == [10, 10]  # the first transition, then windows
    assert sizes[2:] == sorted(sizes[2:], reverse=True)
    assert sizes[-1] <= 2


@pytest.mark.parametrize("window", [1, 8])
def test_progress_adds_up(window: int) -> None:
    told: list[int] = []
    made = graphed(sampler(Uneven(), window, sweeps=1))
    made.sample([0, 0, 1, 0, 0], 3, progress=told.append)
    assert sum(told) == 5 * 30
    assert len(told) > 1


def test_rows_of_others_in_the_smaller_graph_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """The bug that a shrunk batch invites."""

    def planted(state: State, places: Tensor, W: int) -> State:
        right = keep_samples(state, places, W)
        past = right.samples.past
        wrong = past._replace(row=past.row.roll(1, 0))
        return right._replace(samples=right.samples._replace(past=wrong))

    keep_samples = free.sampling.cuda_graphs.batch_graphs.keep_samples
    monkeypatch.setattr(free.sampling.cuda_graphs.batch_graphs, "keep_samples", planted)
    expected = sampler(Uneven(), sweeps=1, recycle="response").sample(SHRINKING, 3)
    made = graphed(sampler(Uneven(), sweeps=1, recycle="response")).sample(SHRINKING, 3)
    assert (made.samples - expected.samples).abs().max() > 0.01
