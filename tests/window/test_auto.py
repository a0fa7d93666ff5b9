"""The automatic window in whole runs: what it chooses, takes up and refuses."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from free import (
    AutoWindow,
    FrozenDrafter,
    Schedule,
    SequentialSampler,
    SpeculativeSampler,
    TeacherOutput,
)
from free.window.acceptance import DISTANCES, PARTS, AcceptanceRecord, write_records
from free.window.costs import CostCurve, RoundCosts
from free.window.recording import RecordingWindow
from tests.networks import MixtureTeacher
from tests.window.play import DRAFTER, SCHEDULE, TEACHER, begun


def costs(slope: float) -> RoundCosts:
    """Costs with which a row takes ``slope`` calls more, drafted in one sweep."""
    rows = [1, 64]
    little = CostCurve(rows, [0.01, 0.01])
    return RoundCosts(
        CostCurve(rows, [1.0, 1.0 + 63 * slope]), little, little, {1: ("rows", little)}
    )


def unmoved(slope: float) -> AutoWindow:
    """With costs that the clock of a test does not correct."""
    known = costs(slope)
    known.observe = lambda *given: None  # type: ignore[method-assign]
    return AutoWindow(costs=known)


def test_rows_that_cost_nothing_are_taken_and_dear_ones_are_not() -> None:
    wide = SpeculativeSampler(TEACHER, DRAFTER, SCHEDULE, unmoved(0.0), sweeps=1)
    assert wide.sample([0, 1]).report.parallel_efficiency > 3
    narrow = SpeculativeSampler(
        TEACHER, DRAFTER, SCHEDULE, unmoved(1.0), cfg_scale=1.5, sweeps=1, recycle="response"
    )
    samples, report = narrow.sample([0, 1, 1], 3)
    assert report.rounds_by_sample == [len(SCHEDULE)] * 3
    assert (report.proposed, report.drafter_calls) == (0, 0)
    expected = SequentialSampler(TEACHER, SCHEDULE, 1.5).sample([0, 1, 1], 3).samples
    torch.testing.assert_close(samples, expected, rtol=0, atol=0)


@pytest.mark.parametrize(("rows", "widest"), [(9, 4), (2, 1), (1, 1)])
def test_a_teacher_may_take_few_rows(rows: int, widest: int) -> None:
    class Narrow(MixtureTeacher):
        largest_batch = rows
        most = 0

        def __call__(self, x: Tensor, t: Tensor, y: Tensor) -> TeacherOutput:
            self.most = max(self.most, len(x))
            return super().__call__(x, t, y)

    teacher, rule = Narrow(4), unmoved(0.0)
    SpeculativeSampler(teacher, DRAFTER, SCHEDULE, rule, sweeps=1).sample([0, 1])
    assert rule.basis is not None
    assert rule.basis.largest == widest
    assert teacher.most <= max(rows, 2)  # the samples themselves cannot be fewer


def test_arguments_are_checked() -> None:
    for largest in (0, True, 2.0):
        with pytest.raises(ValueError, match="largest must be an integer >= 1, got"):
            AutoWindow(largest)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="costs must be RoundCosts or None, got 'fast'"):
        AutoWindow(costs="fast")  # type: ignore[arg-type]
    for records in ([], {1: "good"}):
        with pytest.raises(TypeError, match="records must be a mapping of sweeps to Acceptance"):
            AutoWindow(records=records)  # type: ignore[arg-type]
    sampler = SpeculativeSampler(TEACHER, DRAFTER, SCHEDULE, AutoWindow(costs=costs(0.1)))
    with pytest.raises(ValueError, match=r"curve of drafting for sweeps None, got curves .*\[1\]"):
        sampler.sample([0])


@pytest.mark.parametrize("rule", [AutoWindow(costs=costs(0.1)), RecordingWindow(4)])
def test_seeds_must_be_distinct_where_windows_learn(rule: Any) -> None:
    sampler = SpeculativeSampler(TEACHER, DRAFTER, SCHEDULE, rule, sweeps=1)
    with pytest.raises(ValueError, match=r"seed must not repeat .* window='auto', got \[4, 4\]"):
        sampler.sample([0, 1], seed=[4, 4])


def test_on_cuda_no_window_is_wider_than_the_kernels_verify() -> None:
    with FakeTensorMode():  # which says that it is on a GPU
        state = torch.empty(2, 1, 8, 8, device="cuda")
    rule = AutoWindow(1000, costs(0.1))
    for run, largest in (
        (begun(TEACHER, Schedule.ddpm(300)), 300),
        (begun(TEACHER, Schedule.ddpm(300))._replace(state=state), 256),
        (begun(TEACHER, Schedule.ddpm(30))._replace(state=state), 30),
    ):
        rule.begin(run)
        assert rule.basis is not None
        assert rule.basis.largest == largest


def test_the_record_of_the_drafter_is_taken() -> None:
    known = costs(0.1)
    known.draft[2] = known.draft[1]
    rule, run = AutoWindow(4, known), begun(TEACHER, SCHEDULE)._replace(sweeps="auto")
    record = AcceptanceRecord(np.full((2, len(DISTANCES), PARTS), -3.0))
    run.drafter.acceptance = write_records({2: record})  # type: ignore[union-attr]
    rule.begin(run)
    assert rule.basis is not None
    assert set(rule.basis.records) == {2}
    assert rule.basis.records[2].log_delta.max() == -3.0


@pytest.mark.parametrize(
    ("rule", "schedule"),
    [(AutoWindow(1), Schedule.ddpm(30)), ("auto", Schedule([0], [1.0], [-0.5], [0.0]))],
)
def test_where_nothing_can_be_drafted_nothing_is_measured(rule: Any, schedule: Schedule) -> None:
    drawn = SpeculativeSampler(MixtureTeacher(4), "frozen", schedule, rule).sample([0, 1], 3)
    plain = SequentialSampler(MixtureTeacher(4), schedule).sample([0, 1], 3)
    assert torch.equal(drawn.samples, plain.samples)


class Copied(FrozenDrafter):
    """Without a key to keep costs by; every run has one of its own."""

    cost_key = property(lambda self: None, lambda self, key: None)  # type: ignore[assignment]


def test_costs_are_measured_once_for_all_runs_of_a_drafter() -> None:
    rule = AutoWindow(4)
    sampler = SpeculativeSampler(MixtureTeacher(4), Copied(), Schedule.ddpm(12), rule)
    for seed in (0, 10, 20):
        sampler.sample([0, 1], seed)
    assert len(rule._costs) == 1
