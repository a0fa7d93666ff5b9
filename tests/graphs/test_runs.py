"""Runs of captured rounds, with a capture that calls the function again: all but CUDA's own part.

What CUDA does with the same rounds is tested in ``tests/gpu/test_graphs.py``.
"""

from __future__ import annotations

import copy
import threading
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

import free.graphs.stage
from free import (
    DiT,
    DiTConfig,
    DrafterNet,
    FeatureDrafter,
    Relaxation,
    SamplingResult,
    Schedule,
    SequentialSampler,
    SpeculativeSampler,
    TeacherOutput,
)
from free.graphs import Graphs
from free.graphs.rounds import GraphedRound, State
from free.rows import EveryRow
from free.sources import SOURCES
from tests.networks import CallableDrafter, MixtureTeacher, randomized

TEACHER = MixtureTeacher(4)
SCHEDULE = Schedule.ddpm(30)
LABELS, SEEDS = [0, 1, 0, 1, 0], [7, 8, 9, 10, 2**63 - 1]


def repeated(function: Callable[[], object], device: torch.device) -> Callable[[], object]:
    """As a capture does it: some calls before, which must leave no trace."""
    for _ in range(3):
        function()
    return function


def graphed(sampler: Any, capture: Any = repeated) -> Any:
    sampler._graphs = Graphs(True, capture)
    return sampler


class Guessing(CallableDrafter):
    """Does not check its carry, which at unwanted rows is of any transition."""

    def predict(self, x: Tensor, k: Tensor, y: Tensor, carry: Any) -> Any:
        return self.guess(x, self.table.timesteps[k], y).eps, carry


class Uneven(Guessing):
    """Good at class 0, poor at class 1: samples finish at very different times."""

    def __init__(self) -> None:
        super().__init__(TEACHER)
        self.poor = MixtureTeacher(4, shift=0.5)

    def predict(self, x: Tensor, k: Tensor, y: Tensor, carry: Any) -> Any:
        eps, carry = super().predict(x, k, y, carry)
        poor = self.poor(x, self.table.timesteps[k], y).eps
        return torch.where((y == 1)[:, None], poor, eps), carry


def sampler(drafter: Any = None, window: int = 8, **options: Any) -> SpeculativeSampler:
    drafter = drafter or Guessing(MixtureTeacher(4, shift=0.1))
    return SpeculativeSampler(TEACHER, drafter, SCHEDULE, window, **options)


def same(actual: SamplingResult, expected: SamplingResult) -> None:
    torch.testing.assert_close(actual.samples, expected.samples, rtol=1e-4, atol=1e-4)
    assert actual.report.execution == "graph"
    assert expected.report.execution.startswith("eager: ")
    for count in ("rounds", "rounds_by_sample", "teacher_rows", "accepted", "proposed"):
        assert getattr(actual.report, count) == getattr(expected.report, count), count
    assert actual.report.examined_by_step == expected.report.examined_by_step
    assert actual.report.accepted_by_step == expected.report.accepted_by_step


# --- the same runs -------------------------------------------------------------------------------


@pytest.mark.parametrize("sweeps", [None, 1, 2])
@pytest.mark.parametrize("recycle", [False, True, *SOURCES])
def test_runs_are_those_without_graphs(recycle: bool | str, sweeps: int | None) -> None:
    options: dict[str, Any] = {"recycle": recycle, "sweeps": sweeps, "cfg_scale": 1.5}
    expected = sampler(**options).sample(LABELS, SEEDS)
    assert 0 < expected.report.acceptance < 1
    same(graphed(sampler(**options)).sample(LABELS, SEEDS), expected)


@pytest.mark.parametrize("window", [2, 29, 30, 64])
@pytest.mark.parametrize("batch", [1, 5])
def test_windows_of_any_width(batch: int, window: int) -> None:
    options: dict[str, Any] = {"window": window, "sweeps": 1, "recycle": "response"}
    expected = sampler(**options).sample(LABELS[:batch], SEEDS[:batch])
    same(graphed(sampler(**options)).sample(LABELS[:batch], SEEDS[:batch]), expected)


def test_block_verification() -> None:
    expected = sampler(verifier="block").sample(LABELS, SEEDS)
    same(graphed(sampler(verifier="block")).sample(LABELS, SEEDS), expected)


@pytest.mark.parametrize("window", [1, 2, 5])
@pytest.mark.parametrize("steps", [2, 3])
def test_the_shortest_schedules(steps: int, window: int) -> None:
    made = SpeculativeSampler(TEACHER, Guessing(TEACHER), Schedule.ddpm(steps), window, sweeps=1)
    expected = made.sample(LABELS, SEEDS)
    same(graphed(made).sample(LABELS, SEEDS), expected)


@pytest.mark.parametrize("cfg_scale", [1.0, 1.5])
def test_the_plain_sampler(cfg_scale: float) -> None:
    expected = SequentialSampler(TEACHER, SCHEDULE, cfg_scale).sample(LABELS, SEEDS)
    plain = graphed(SequentialSampler(TEACHER, SCHEDULE, cfg_scale))
    same(plain.sample(LABELS, SEEDS), expected)
    same(graphed(sampler(window=1, cfg_scale=cfg_scale)).sample(LABELS, SEEDS), expected)


def test_a_network_with_features() -> None:
    config = DiTConfig(8, 4, 4, 32, 2, 2, num_classes=3)
    teacher = randomized(DiT(config))
    drafter = FeatureDrafter(randomized(DrafterNet(config), 1), teacher)
    for options in ({"sweeps": 1, "recycle": "response"}, {}, {"sweeps": 2, "recycle": True}):
        made = SpeculativeSampler(teacher, drafter, SCHEDULE, 6, 1.5, 3, **options)
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
    options: dict[str, Any] = {"sweeps": 1, "recycle": "response"}
    one, other = graphed(sampler(**options)), sampler(**options)
    for labels, seed in (([0, 1], 3), ([1, 1], 4), ([0], 5), ([0, 1], 3)):
        same(one.sample(labels, seed), other.sample(labels, seed))


def test_a_sampler_that_is_changed_captures_anew() -> None:
    made = graphed(sampler(sweeps=1))
    made.sample([0, 1], 3)
    made.teacher = MixtureTeacher(4, shift=0.3)
    made.schedule = Schedule.ddpm(20)
    expected = SpeculativeSampler(made.teacher, made.drafter, made.schedule, 8, sweeps=1)
    same(made.sample([0, 1], 3), expected.sample([0, 1], 3))


def test_runs_in_and_outside_of_inference_mode() -> None:
    made, expected = graphed(sampler(sweeps=1)), sampler(sweeps=1).sample([0, 1], 3)
    with torch.inference_mode():
        same(made.sample([0, 1], 3), expected)
    same(made.sample([0, 1], 3), expected)


def test_copies_capture_their_own() -> None:
    made = graphed(sampler(sweeps=1))
    made.sample([0, 1], 3)
    copied = copy.deepcopy(made)
    assert copied._graphs._stages == {}
    assert copied._graphs._graph is True


def test_threads_take_turns() -> None:
    one, other = graphed(sampler(sweeps=1)), sampler(sweeps=1)
    made: dict[int, SamplingResult] = {}
    threads = [
        threading.Thread(target=lambda s=seed: made.update({s: one.sample([0, 1], s)}))
        for seed in range(6)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for seed, result in made.items():
        same(result, other.sample([0, 1], seed))
    assert len(made) == 6


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # torch.compile's own
def test_compiled_rounds() -> None:
    """Rounds are traced as a whole, or there would be an error."""
    config = DiTConfig(4, 4, 4, 16, 1, 2, num_classes=3)
    teacher = randomized(DiT(config))
    drafter = FeatureDrafter(randomized(DrafterNet(config), 1), teacher)
    made = SpeculativeSampler(
        teacher, drafter, SCHEDULE, 4, 1.5, sweeps=1, recycle="response", graph=False
    )
    expected = made.sample([0, 1], 5)
    made._graphs = Graphs("compiled", repeated)
    same(made.sample([0, 1], 5), expected)
    plain = SequentialSampler(teacher, SCHEDULE, 1.5)
    expected = plain.sample([0, 1], 5)
    plain._graphs = Graphs("compiled", repeated)
    same(plain.sample([0, 1], 5), expected)


# --- what a round costs the host -----------------------------------------------------------------


def test_no_round_is_made_in_vain_and_few_are_read_back(monkeypatch: pytest.MonkeyPatch) -> None:
    reads, steps = [], GraphedRound.steps
    monkeypatch.setattr(GraphedRound, "steps", lambda self: (reads.append(0), steps(self))[1])
    report = graphed(sampler(window=4, sweeps=1)).sample(LABELS, SEEDS).report
    assert report.rounds == max(report.rounds_by_sample)
    assert len(reads) <= report.rounds // 2


def _sizes(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    loaded, load = [], GraphedRound.load

    def kept(self: GraphedRound, state: State) -> None:
        loaded.append(len(state.at.k))
        load(self, state)

    monkeypatch.setattr(GraphedRound, "load", kept)
    return loaded


@pytest.mark.parametrize("recycle", [False, "response"])
def test_a_batch_that_has_shrunk_goes_on_in_a_smaller_graph(
    recycle: bool | str, monkeypatch: pytest.MonkeyPatch
) -> None:
    labels = [0, 0, 1, 0, 0, 0, 1, 0, 0, 0]
    expected = sampler(Uneven(), sweeps=1, recycle=recycle).sample(labels, 3)
    sizes = _sizes(monkeypatch)
    same(graphed(sampler(Uneven(), sweeps=1, recycle=recycle)).sample(labels, 3), expected)
    assert sizes[:2] == [10, 10]  # the first transition, then windows
    assert sizes[2:] == sorted(sizes[2:], reverse=True)
    assert sizes[-1] <= 2


def test_rows_of_others_in_the_smaller_graph_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """The bug that a shrunk batch invites."""

    def planted(state: State, samples: Tensor, W: int) -> State:
        right = kept(state, samples, W)
        assert right.at.past is not None
        wrong = right.at.past._replace(row=right.at.past.row.roll(1, 0))
        return right._replace(at=right.at._replace(past=wrong))

    kept = free.graphs.stage.kept
    monkeypatch.setattr(free.graphs.stage, "kept", planted)
    labels = [0, 0, 1, 0, 0, 0, 1, 0, 0, 0]
    expected = sampler(Uneven(), sweeps=1, recycle="response").sample(labels, 3)
    made = graphed(sampler(Uneven(), sweeps=1, recycle="response")).sample(labels, 3)
    assert (made.samples - expected.samples).abs().max() > 0.01


@pytest.mark.parametrize("window", [1, 8])
def test_progress_adds_up(window: int) -> None:
    told: list[int] = []
    made = graphed(sampler(Uneven(), window, sweeps=1))
    made.sample([0, 0, 1, 0, 0], 3, progress=told.append)
    assert sum(told) == 5 * 30
    assert len(told) > 1


# --- refusals ------------------------------------------------------------------------------------


class Broken(MixtureTeacher):
    """Says NaN of class 1 from some timestep on."""

    def __call__(self, x: Tensor, t: Tensor, y: Tensor) -> TeacherOutput:
        eps = super().__call__(x, t, y).eps
        return TeacherOutput(torch.where(((t < 500) & (y == 1))[:, None], torch.nan, eps))


@pytest.mark.parametrize("window", [1, 6])
def test_a_network_that_fails_is_named(window: int) -> None:
    step = int((torch.tensor(SCHEDULE.timesteps) < 500).int().argmax())
    made = SpeculativeSampler(Broken(4), "frozen", SCHEDULE, window, sweeps=1)
    message = rf"^teacher returned a non-finite eps at step \[{step}\] for sample \[1, 3\]$"
    for _ in range(2):
        with pytest.raises(FloatingPointError, match=message):
            graphed(made).sample([0, 1, 0, 1], 0)
    assert graphed(made).sample([0, 0], 0).samples.isfinite().all()


class Late(Guessing):
    """A drafter that says NaN from transition 10 on."""

    def predict(self, x: Tensor, k: Tensor, y: Tensor, carry: Any) -> Any:
        eps, carry = super().predict(x, k, y, carry)
        return torch.where((k >= 10)[:, None], torch.nan, eps), carry


@pytest.mark.parametrize("sweeps", [None, 1])
def test_the_drafter_is_named_where_it_is_the_drafters(sweeps: int | None) -> None:
    with pytest.raises(FloatingPointError, match=r"^drafter .* at step \[10\] for sample \[0\]$"):
        graphed(sampler(Late(TEACHER), sweeps=sweeps)).sample([0], 0)


def test_what_nobody_wanted_is_not_judged() -> None:
    """Discarded states that are not recycled, rows past the end, samples that have finished."""

    class Odd(Guessing):
        def predict(self, x: Tensor, k: Tensor, y: Tensor, carry: Any) -> Any:
            asked.append(k)
            eps, carry = super().predict(x, k, y, carry)
            return torch.where((k == 29)[:, None], torch.nan, eps), carry

    asked: list[Tensor] = []
    for recycle in (False, True, "control_variate"):
        graphed(sampler(Odd(TEACHER), sweeps=1, recycle=recycle)).sample(LABELS, SEEDS)
    assert max(int(k.max()) for k in asked) == 29


def test_large_values_of_half_precision_are_finite() -> None:
    rows = EveryRow(1, 30, torch.device("cpu"))
    k, wanted = torch.zeros(1, dtype=torch.int64), torch.ones(1, dtype=torch.bool)
    for value, failed in ((5.0, 30), (torch.inf, 0)):
        rows.require_finite(torch.full((1, 16384), value).half(), "teacher", k, k, wanted)
        assert int(rows.failed["teacher"]) == failed


def test_autocast_is_refused() -> None:
    made = SpeculativeSampler(Pure(4), "frozen", SCHEDULE, 4)
    made._graphs = Graphs(None, repeated)
    with torch.autocast("cpu"):
        report = made.sample([0, 1], 0).report
    assert report.execution == "eager: torch.autocast keeps weights of its own"


class Outside(MixtureTeacher):
    capturable = False


class Pure(MixtureTeacher):
    capturable = True


REFUSALS: dict[str, tuple[Callable[[], Any], str]] = {
    "cpu": (sampler, "states are on cpu, not on a CUDA device"),
    "asked": (lambda: sampler(graph=False), "as asked"),
    "auto": (lambda: sampler(window="auto"), "windows are chosen anew in every round"),
    "callable": (
        lambda: SpeculativeSampler(TEACHER, "frozen", SCHEDULE, 4),
        "the teacher is no torch.nn.Module; graph=True takes it for a function",
    ),
    "drafter": (
        lambda: SpeculativeSampler(Pure(4), CallableDrafter(TEACHER), SCHEDULE, 4),
        "the drafter is no torch.nn.Module; graph=True takes it for a function",
    ),
    "variance": (
        lambda: sampler(
            Uneven(),
            sweeps=1,
            relaxation=Relaxation("allow", 0.3, uncertainty="learned_variance"),
        ),
        "a learned variance is checked in every round",
    ),
    "engine": (
        lambda: SpeculativeSampler(Outside(4), "frozen", SCHEDULE, 4),
        "the teacher runs outside of torch",
    ),
}


@pytest.mark.parametrize("name", REFUSALS)
def test_why_there_is_no_graph(name: str) -> None:
    make, why = REFUSALS[name]
    made = make()
    if name not in ("cpu", "asked"):
        made._graphs = Graphs(None, repeated)
    if name == "variance":
        with pytest.raises(ValueError, match="TeacherOutput has variance None"):
            made.sample([0, 1], 0)
        return
    assert made.sample([0, 1], 0).report.execution == f"eager: {why}"
    if name in ("callable", "drafter"):
        return
    if name != "asked":
        made._graphs = Graphs(True) if name == "cpu" else Graphs(True, repeated)
        with pytest.raises(ValueError, match=f"^graph must be False or None .* got True: {why}$"):
            made.sample([0, 1], 0)


def test_what_is_all_torch_is_captured_unasked() -> None:
    made = SpeculativeSampler(Pure(4), "frozen", SCHEDULE, 4)
    made._graphs = Graphs(None, repeated)
    assert made.sample([0, 1], 0).report.execution == "graph"


def test_an_observer_is_served_without_graphs() -> None:
    seen: list[int] = []
    made = sampler()
    made._graphs = Graphs(None, repeated)
    report = made.sample([0, 1], 0, observer=lambda step, x: seen.append(step)).report
    assert report.execution == "eager: an observer looks at every round"
    assert seen[-1] == 30


def test_what_cuda_refuses_is_said_and_not_tried_again() -> None:
    tries = []

    def refusing(function: Any, device: Any) -> Any:
        tries.append(function)
        raise free.graphs.CaptureError("CUDA could not capture a round: no")

    made = SpeculativeSampler(Pure(4), "frozen", SCHEDULE, 4)
    made._graphs = Graphs(None, refusing)
    for _ in range(2):
        report = made.sample([0, 1], 0).report
        assert report.execution == "eager: CUDA could not capture a round: no"
    assert len(tries) == 1


@pytest.mark.parametrize("graph", [1, "yes"])
@pytest.mark.parametrize(
    "make", [sampler, lambda graph: SequentialSampler(TEACHER, SCHEDULE, graph=graph)]
)
def test_graph_is_a_bool_or_none(make: Any, graph: Any) -> None:
    with pytest.raises(ValueError, match=f"^graph must be .* or 'compiled', got {graph!r}$"):
        make(graph=graph)
