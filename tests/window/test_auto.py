"""The automatic window in whole runs: what it measures, keeps, refuses and chooses."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from free import (
    AutoWindow,
    DiT,
    DiTConfig,
    DrafterNet,
    FeatureDrafter,
    Schedule,
    SequentialSampler,
    SpeculativeSampler,
)
from free.window import Choice, FixedWindow, Run, Windows
from free.window.acceptance import DISTANCES, PARTS
from free.window.costs import RoundCosts
from free.window.curve import CostCurve
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


def test_rows_that_cost_nothing_are_taken_and_dear_ones_are_not() -> None:
    wide = SpeculativeSampler(TEACHER, DRAFTER, SCHEDULE, AutoWindow(costs=costs(0.0)), sweeps=1)
    # The clock of this test is not theirs: the curves would follow it.
    for rule in (wide._windows,):
        rule.costs.observe = lambda *given: None  # type: ignore[attr-defined, method-assign]
    report = wide.sample([0, 1]).report
    assert report.parallel_efficiency > 3
    dear = AutoWindow(costs=costs(1.0))
    dear.costs.observe = lambda *given: None  # type: ignore[union-attr, method-assign]
    plain = SpeculativeSampler(TEACHER, DRAFTER, SCHEDULE, dear, sweeps=1).sample([0, 1], 3)
    assert plain.report.teacher_rows == 2 * len(SCHEDULE)
    expected = SequentialSampler(TEACHER, SCHEDULE).sample([0, 1], 3).samples
    # Without recycling noises are those of their rounds; here round and transition agree.
    assert plain.samples.shape == expected.shape


def test_recycling_and_no_drafts_is_the_plain_sampler() -> None:
    dear = AutoWindow(costs=costs(1.0))
    dear.costs.observe = lambda *given: None  # type: ignore[union-attr, method-assign]
    sampler = SpeculativeSampler(
        TEACHER, DRAFTER, SCHEDULE, dear, cfg_scale=1.5, sweeps=1, recycle="response"
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
    assert sum(report.rounds_by_sample) >= 3 * len(SCHEDULE) / 6
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


@pytest.mark.parametrize("damage", ["", "{}", '{"costs": {"teacher": 3}}', "[]"])
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


def test_seeds_must_be_distinct() -> None:
    sampler = SpeculativeSampler(TEACHER, DRAFTER, SCHEDULE, AutoWindow(costs=costs(0.1)), sweeps=1)
    with pytest.raises(ValueError, match=r"seed must not repeat .* window='auto', got \[4, 4\]"):
        sampler.sample([0, 1], seed=[4, 4])


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
        (lambda k: Choice(0 * k, 1), "lengths of 1 to the .* got"),
        (lambda k: Choice(0 * k + 99, 1), "lengths of 1 to the .* got"),
        (lambda k: Choice(1 + 0 * k[:1], 1), "lengths of 1 to the .* got"),
        (lambda k: Choice(1 + 0 * k, 1, 99), "0 to 40 plain transitions, got 99"),
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
    with pytest.raises(ValueError, match=f"window must choose {message}"):
        sampler.sample([0, 1])


def test_a_fixed_rule_is_the_number() -> None:
    by_rule = SpeculativeSampler(TEACHER, DRAFTER, SCHEDULE, FixedWindow(4), sweeps=1)
    by_number = SpeculativeSampler(TEACHER, DRAFTER, SCHEDULE, 4, sweeps=1)
    assert torch.equal(by_rule.sample([0, 1]).samples, by_number.sample([0, 1]).samples)
