"""The automatic window in whole runs: what it measures, keeps, refuses and chooses."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from free import (
    AutoWindow,
    DiT,
    DiTConfig,
    DrafterNet,
    FeatureDrafter,
    FrozenDrafter,
    Schedule,
    SequentialSampler,
    SpeculativeSampler,
    TeacherOutput,
)
from free.engines.networks import EngineTeacher
from free.schedule.table import Prediction, Table
from free.window import Choice, FixedWindow, Run, Windows
from free.window.acceptance import DISTANCES, PARTS
from free.window.costs import CostCurve, RoundCosts
from free.window.measure import fingerprint
from free.window.recording import RecordingWindow
from tests.networks import CallableDrafter, MixtureTeacher, randomized

TEACHER = MixtureTeacher(4)
DRAFTER = CallableDrafter(MixtureTeacher(4, shift=0.02))
SCHEDULE = Schedule.ddpm(40)
CONFIG = DiTConfig(8, 4, 1, 16, 1, 2, num_classes=3, learn_sigma=False)


@pytest.fixture(autouse=True)
def cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setenv("FREE_CACHE", str(tmp_path))
    return tmp_path / "costs"


def costs(slope: float, ways: tuple[int | None, ...] = (1,)) -> RoundCosts:
    """Of which a row takes ``slope`` calls more."""
    rows = [1, 64]
    teacher = CostCurve(rows, [1.0, 1.0 + 63 * slope])
    little = CostCurve(rows, [0.01, 0.01])
    return RoundCosts(teacher, little, little, dict.fromkeys(ways, ("rows", little)))


def networks() -> tuple[DiT, FeatureDrafter]:
    teacher = randomized(DiT(CONFIG))
    network = randomized(DrafterNet(CONFIG), 1)
    assert isinstance(teacher, DiT)
    assert isinstance(network, DrafterNet)
    return teacher, FeatureDrafter(network, teacher)


def unmoved(slope: float) -> AutoWindow:
    """With costs that the clock of a test does not correct."""
    known = costs(slope)
    known.observe = lambda *given: None  # type: ignore[method-assign]
    return AutoWindow(costs=known)


def test_rows_that_cost_nothing_are_taken_and_dear_ones_are_not() -> None:
    wide = SpeculativeSampler(TEACHER, DRAFTER, SCHEDULE, unmoved(0.0), sweeps=1)
    assert wide.sample([0, 1]).report.parallel_efficiency > 3
    narrow = SpeculativeSampler(TEACHER, DRAFTER, SCHEDULE, unmoved(1.0), sweeps=1)
    report = narrow.sample([0, 1], 3).report
    assert report.rounds_by_sample == [len(SCHEDULE)] * 2
    assert (report.proposed, report.drafter_calls) == (0, 0)


@pytest.mark.parametrize(("rows", "widest"), [(9, 4), (2, 1), (1, 1)])
def test_a_teacher_may_take_few_rows(rows: int, widest: int) -> None:
    class Narrow(MixtureTeacher):
        largest_batch = rows
        seen = 0

        def __call__(self, x: Tensor, t: Tensor, y: Tensor) -> TeacherOutput:
            self.seen = max(self.seen, len(x))
            return super().__call__(x, t, y)

    teacher, rule = Narrow(4), unmoved(0.0)
    SpeculativeSampler(teacher, DRAFTER, SCHEDULE, rule, sweeps=1).sample([0, 1])
    assert rule.basis is not None
    assert rule.basis.largest == widest
    assert teacher.seen <= max(rows, 2)  # the samples themselves cannot be fewer


def test_recycling_and_no_drafts_is_the_plain_sampler() -> None:
    sampler = SpeculativeSampler(
        TEACHER, DRAFTER, SCHEDULE, unmoved(1.0), cfg_scale=1.5, sweeps=1, recycle="response"
    )
    expected = SequentialSampler(TEACHER, SCHEDULE, 1.5).sample([0, 1, 1], 3).samples
    torch.testing.assert_close(sampler.sample([0, 1, 1], 3).samples, expected, rtol=0, atol=0)


@pytest.mark.parametrize("verifier", ["reflection", "block"])
@pytest.mark.parametrize("sweeps", [None, 1, "auto"])
def test_measured_here_and_kept(sweeps: Any, verifier: str, cache: Path) -> None:
    teacher, drafter = networks()
    rule = AutoWindow(6)
    sampler = SpeculativeSampler(
        teacher, drafter, SCHEDULE, rule, 1.5, sweeps=sweeps, verifier=verifier
    )
    samples, report = sampler.sample([0, 1, 2])
    assert samples.isfinite().all()
    # A transition is an accepted draft, or the one that each round makes besides.
    assert report.accepted + sum(report.rounds_by_sample) == 3 * len(SCHEDULE)
    assert rule.basis is not None
    assert set(rule.basis.ways) == ({1, 2} if sweeps == "auto" else {sweeps})
    (path,) = cache.iterdir()
    kept = json.loads(path.read_text())
    assert kept["shape"] == [3, 1, 8, 8]
    again = AutoWindow(6)
    SpeculativeSampler(
        teacher, drafter, SCHEDULE, again, 1.5, sweeps=sweeps, verifier=verifier
    ).sample([0, 1, 2])
    assert again.basis is not None
    assert list(cache.iterdir()) == [path]
    # What is kept is what was measured, not what a run made of it.
    assert json.loads(path.read_text()) == kept


CURVE = '{"by": "rows", "rows": [1], "seconds": [1]}'


@pytest.mark.parametrize(
    "damage",
    [
        "",
        "{}",
        '{"costs": {"teacher": 3}}',
        "[]",
        f'{{"costs": {{"teacher": {CURVE}, "plain": {CURVE}, "other": {CURVE}, "draft": {{}}}}}}',
        '{"costs": {"teacher": {"rows": [Infinity], "seconds": [1]}}}',
    ],
)
def test_damaged_costs_are_measured_again(damage: str, cache: Path) -> None:
    teacher, drafter = networks()
    sampler = SpeculativeSampler(teacher, drafter, SCHEDULE, AutoWindow(4), sweeps=1)
    sampler.sample([0])
    (path,) = cache.iterdir()
    path.write_text(damage)
    SpeculativeSampler(teacher, drafter, SCHEDULE, AutoWindow(4), sweeps=1).sample([0])
    assert RoundCosts.from_dict(json.loads(path.read_text())["costs"])


def test_a_cache_that_cannot_be_written(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("FREE_CACHE", str(tmp_path / "file"))
    teacher, drafter = networks()
    sampler = SpeculativeSampler(teacher, drafter, SCHEDULE, AutoWindow(4), sweeps=1)
    assert sampler.sample([0]).samples.isfinite().all()


def test_unknown_teachers_are_measured_and_not_kept(cache: Path) -> None:
    rule = AutoWindow(4)
    sampler = SpeculativeSampler(TEACHER, DRAFTER, SCHEDULE, rule, sweeps=1)
    sampler.sample([0, 1])
    assert rule.basis is not None
    assert not cache.exists()


def test_costs_are_those_of_the_networks_of_the_run(cache: Path) -> None:
    """One rule in several samplers: another drafter, guidance or variance is measured anew."""
    other = CallableDrafter(MixtureTeacher(4, shift=0.02))
    mixed = Schedule.ddpm(40, variance=lambda x, t: torch.full((len(x),), 0.5))
    rule, found = AutoWindow(4), []
    for drafter, schedule, scale in (
        (DRAFTER, SCHEDULE, 1.0),
        (other, SCHEDULE, 1.0),
        (DRAFTER, mixed, 1.0),
        (DRAFTER, SCHEDULE, 1.5),
        (DRAFTER, SCHEDULE, 1.0),
    ):
        SpeculativeSampler(TEACHER, drafter, schedule, rule, scale, sweeps=1).sample([0])
        assert rule.basis is not None
        found.append(rule.basis.costs)
    assert len({id(costs) for costs in found}) == 4
    assert found[-1] is found[0]


def test_fingerprints_tell_engines_and_variances_apart() -> None:
    def of(cost_key: Any, schedule: Schedule = SCHEDULE) -> str | None:
        teacher = EngineTeacher({"teacher": PlainSession()}, CONFIG, cost_key)
        return fingerprint(_run(teacher, schedule))

    keys = [["onnxruntime", "cpu", None, {}], ["onnxruntime", "cpu", 2, {}], ["tensorrt", "cuda"]]
    found = [of(key) for key in keys]
    assert None not in found
    assert len(set(found)) == 3
    assert of(keys[0]) == found[0]
    assert of(None) is None  # sessions of which nothing is known
    assert of(keys[0], Schedule.ddpm(40, variance=lambda x, t: t * 0.0)) is None


class PlainSession:
    """Of which only the device is asked."""

    device = torch.device("cpu")


def _run(teacher: Any, schedule: Schedule) -> Run:
    table = Table.of(schedule, "cpu")
    drafter, labels, state = FrozenDrafter(), torch.arange(2), torch.zeros(2, 1, 8, 8)
    prediction = Prediction.of(table)
    return Run(
        teacher, teacher, False, drafter, table, prediction, labels, labels, state, 1, "reflection"
    )


def test_what_is_given_is_checked() -> None:
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
        (_run(TEACHER, Schedule.ddpm(300)), 300),
        (_run(TEACHER, Schedule.ddpm(300))._replace(state=state), 256),
        (_run(TEACHER, Schedule.ddpm(30))._replace(state=state), 30),
    ):
        rule.begin(run)
        assert rule.basis is not None
        assert rule.basis.largest == largest


@pytest.mark.parametrize("largest", [0, True, 2.0])
def test_bad_widths(largest: Any) -> None:
    with pytest.raises(ValueError, match="largest must be an integer >= 1, got"):
        AutoWindow(largest)


def test_the_record_of_the_drafter_is_taken() -> None:
    teacher, drafter = networks()
    table = np.full((2, len(DISTANCES), PARTS), -3.0).tolist()
    drafter = FeatureDrafter(drafter.network, teacher, {"window": 4, "acceptance": {"2": table}})
    assert drafter.sampling == {"window": 4}
    rule = AutoWindow(4)
    SpeculativeSampler(teacher, drafter, SCHEDULE, rule, sweeps="auto").sample([0])
    assert rule.basis is not None
    assert rule.basis.ways[2].log_delta.max() == -3.0
    assert set(rule.basis.ways) == {2}


@pytest.mark.parametrize(
    ("choice", "message"),
    [
        (lambda k: Choice(0 * k, 1), r"lengths of 1 to \[1, 1\] here, got \[0, 0\]"),
        (lambda k: Choice(0 * k + 2, 1), r"lengths of 1 to \[1, 1\] here, got \[2, 2\]"),
        (lambda k: Choice(1 + (k > 0) * 4, 1), r"lengths of 1 to \[4, 4\] here, got \[5, 5\]"),
        (
            lambda k: Choice(1 + (k > 0) * 1, 1, 1),
            r"lengths of 1 with plain transitions.*got \[2, 2\]",
        ),
        (lambda k: Choice(1 + 0 * k[:1], 1), r"2 lengths.* got int64 of shape \[1\]"),
        (lambda k: Choice(1.5 + 0 * k, 1), "2 lengths, integers.* got float64"),
        (lambda k: Choice(1 + 0 * k, 1, 99), "0 to 40 plain transitions, got 99"),
        (lambda k: None, "a Choice, got None"),
    ],
)
def test_rules_that_choose_what_cannot_be(choice: Any, message: str) -> None:
    class Rule:
        largest, learns = 4, False

        def begin(self, run: Run) -> Windows:
            return self

        def choose(self, k: Any, known: Any) -> Choice:
            return choice(k)

        def made(self, committed: Any) -> None:
            pass

    sampler = SpeculativeSampler(TEACHER, DRAFTER, SCHEDULE, Rule(), sweeps=1)
    with pytest.raises((TypeError, ValueError), match=f"window must choose {message}"):
        sampler.sample([0, 1])


def test_a_rule_is_told_of_every_transition() -> None:
    """Of those that the plain sampler made, too."""
    made = np.zeros(3, dtype=np.int64)

    class Rule:
        largest, learns = 3, False

        def begin(self, run: Run) -> Windows:
            self.left = np.arange(3)
            return self

        def choose(self, k: Any, known: Any) -> Choice:
            assert np.array_equal(made[self.left], k)
            left = len(SCHEDULE) - k
            if known is None or k.min() % 2:
                return Choice(np.ones_like(k), 1, min(4, int(left.min())))
            return Choice(np.minimum(left, 3), 1)

        def made(self, committed: Any) -> None:
            made[self.left] += committed.advance
            self.left = self.left[committed.going]

    SpeculativeSampler(TEACHER, DRAFTER, SCHEDULE, Rule(), sweeps=1).sample([0, 1, 2])
    assert made.tolist() == [len(SCHEDULE)] * 3


def test_a_fixed_rule_is_the_number() -> None:
    by_rule = SpeculativeSampler(TEACHER, DRAFTER, SCHEDULE, FixedWindow(4), sweeps=1)
    by_number = SpeculativeSampler(TEACHER, DRAFTER, SCHEDULE, 4, sweeps=1)
    assert torch.equal(by_rule.sample([0, 1]).samples, by_number.sample([0, 1]).samples)
