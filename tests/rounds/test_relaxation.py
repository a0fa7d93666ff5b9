"""Relaxation: its arguments, where uncertainties come from, the exact ends, and reports. What it
does to the law is in ``law/test_relaxation.py``, the op in ``test_verify_relaxed.py``.
"""

from __future__ import annotations

import dataclasses
import json
import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import free.rounds.relaxation
from free import (
    Relaxation,
    Report,
    Schedule,
    SpeculativeSampler,
    TeacherOutput,
    load_pretrained,
)
from free.reference.decide import RULES
from tests.networks import CallableDrafter, MixtureTeacher

SCHEDULE = Schedule.ddpm(30)
POOR = CallableDrafter(MixtureTeacher(4, shift=0.15))


class Unsure(MixtureTeacher):
    def __call__(self, x: Tensor, t: Tensor, y: Tensor) -> TeacherOutput:
        return super().__call__(x, t, y)._replace(variance=x.sin())


def _sampler(relaxation: Relaxation | None, **options: Any) -> SpeculativeSampler:
    options = {"schedule": SCHEDULE, "window": 4} | options
    return SpeculativeSampler(Unsure(4), POOR, relaxation=relaxation, **options)


SOURCES = ["discrepancy", "learned_variance", np.linspace(-0.5, 2, 30)]


@pytest.mark.parametrize("recycle", [False, True])
@pytest.mark.parametrize("cfg_scale", [1.0, 1.5])
@pytest.mark.parametrize("source", SOURCES, ids=["discrepancy", "variance", "table"])
@pytest.mark.parametrize("rule", RULES)
def test_no_budget_and_no_strength_are_the_exact_sampler(
    rule: str, source: Any, cfg_scale: float, recycle: bool
) -> None:
    """Bit for bit, and in every count; where there is something to spend, they part."""
    labels = [0, 1, 2, 1, 0] * 4
    options = {"cfg_scale": cfg_scale, "recycle": recycle}
    exact = _sampler(None, **options).sample(labels, 7)
    counts = ("rounds_by_sample", "examined_by_step", "accepted_by_step")
    for relaxation in (Relaxation(rule, 2.0, 0, source), Relaxation(rule, 0.0, None, source)):
        same = _sampler(relaxation, **options).sample(labels, 7)
        assert torch.equal(same.samples, exact.samples)
        for name in (*counts, "tv_bound_by_sample", "tv_estimate_by_sample"):
            assert getattr(same.report, name) == getattr(exact.report, name)
    other = _sampler(Relaxation(rule, 2.0, None, source), **options).sample(labels, 7)
    assert not torch.equal(other.samples, exact.samples)
    assert other.report.tv_bound > 0


def test_no_budget_is_the_exact_sampler_of_digits() -> None:
    teacher, drafter = load_pretrained("mnist")
    draws = [
        SpeculativeSampler(
            teacher,
            drafter,
            Schedule.ddpm(25),
            cfg_scale=1.5,
            relaxation=relaxation,
            **drafter.sampling,
        ).sample([0, 4, 7], 3)
        for relaxation in (None, Relaxation("allow", 1.0, 0.0), Relaxation("allow", 1.0))
    ]
    assert torch.equal(draws[1].samples, draws[0].samples)
    assert draws[2].report.rounds < draws[0].report.rounds


def test_relaxing_saves_rounds_within_the_budget() -> None:
    labels = [0, 1] * 100
    reports = [
        _sampler(relaxation).sample(labels).report
        for relaxation in (None, Relaxation(tv_budget=0.2), Relaxation(), Relaxation(strength=5.0))
    ]
    rounds = [sum(report.rounds_by_sample) for report in reports]
    assert rounds == sorted(rounds, reverse=True)
    assert len(set(rounds)) == 4
    assert 0.05 < max(reports[1].tv_bound_by_sample) <= 0.2
    for report in reports:
        assert len(report.tv_bound_by_sample) == len(report.tv_estimate_by_sample) == 200
        assert report.tv_bound == pytest.approx(np.mean(report.tv_bound_by_sample))
        assert report.tv_estimate == pytest.approx(np.mean(report.tv_estimate_by_sample))
        assert all(0 <= tv <= 1 for tv in report.tv_estimate_by_sample)


def test_a_sample_spends_the_same_alone() -> None:
    """Samples finish at different times; each keeps its own account."""
    relaxation = Relaxation("allow", 0.5, 0.3, "learned_variance")
    together = _sampler(relaxation).sample([0, 1, 2, 1, 0], 11).report
    assert len(set(together.rounds_by_sample)) > 1
    for i, label in enumerate([0, 1, 2, 1, 0]):
        alone = _sampler(relaxation).sample([label], 11 + i).report
        assert alone.tv_bound == pytest.approx(together.tv_bound_by_sample[i], abs=1e-4)
        assert alone.tv_estimate == pytest.approx(together.tv_estimate_by_sample[i], abs=1e-3)


# --- where uncertainties come from -------------------------------------------------------------


def _asked(relaxation: Relaxation, monkeypatch: pytest.MonkeyPatch, teacher: Any) -> list[Any]:
    """Uncertainty, states and lengths of each round, with each sample's transition."""
    seen: list[Any] = []
    real = free.rounds.relaxation.verify_window_relaxed

    def spy(*arguments: Any) -> Any:
        out = real(*arguments)
        seen.append((arguments[7], arguments[0], arguments[4], out.advance))
        return out

    monkeypatch.setattr(free.rounds.relaxation, "verify_window_relaxed", spy)
    sampler = SpeculativeSampler(teacher, POOR, SCHEDULE, 4, relaxation=relaxation)
    sampler.sample([1], 5)
    return seen


def test_learned_variance_is_the_teachers_over_the_posteriors(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Of the state that the transition starts from, averaged over it."""
    posterior = SCHEDULE.sigma**2
    log_span = np.log(Schedule.ddpm(30, variance="upper").sigma[:-1] ** 2 / posterior[:-1])
    k = 1  # the first transition is made without drafts
    for u, states, length, advance in _asked(
        Relaxation(uncertainty="learned_variance"), monkeypatch, Unsure(4)
    ):
        for j in range(int(length) - 1):
            share = float((states[0, j].sin().mean() + 1) / 2)
            assert float(u[0, j]) == pytest.approx(share * log_span[k + j], rel=1e-4, abs=1e-6)
        k += int(advance)
    assert k == 30


def test_a_table_is_looked_up_by_transition(monkeypatch: pytest.MonkeyPatch) -> None:
    k = 1  # the first transition is made without drafts
    relaxation = Relaxation("allow", 0.1, None, range(30))
    for u, _, length, advance in _asked(relaxation, monkeypatch, MixtureTeacher(4)):
        drafts = int(length) - 1
        assert u[0, :drafts].tolist() == [float(k + j) for j in range(drafts)]
        k += int(advance)


def test_the_discrepancy_is_left_to_the_op(monkeypatch: pytest.MonkeyPatch) -> None:
    assert all(u is None for u, *_ in _asked(Relaxation(), monkeypatch, MixtureTeacher(4)))


def test_a_teacher_without_variance() -> None:
    sampler = SpeculativeSampler(
        MixtureTeacher(4), POOR, SCHEDULE, relaxation=Relaxation(uncertainty="learned_variance")
    )
    with pytest.raises(
        ValueError,
        match="^relaxation must not be by 'learned_variance' for a teacher without one: its "
        "TeacherOutput has variance None$",
    ):
        sampler.sample([0])


def test_a_variance_that_is_not_finite() -> None:
    class Broken(MixtureTeacher):
        def __call__(self, x: Tensor, t: Tensor, y: Tensor) -> TeacherOutput:
            variance = torch.zeros_like(x)
            variance[-1, 2] = math.nan
            return super().__call__(x, t, y)._replace(variance=variance)

    relaxation = Relaxation(uncertainty="learned_variance")
    sampler = SpeculativeSampler(Broken(4), POOR, SCHEDULE, relaxation=relaxation)
    with pytest.raises(
        FloatingPointError, match=r"teacher returned a non-finite variance at step \[8\] for "
        r"sample \[1\]",
    ):  # fmt: skip
        sampler.sample([0, 1])


# --- reports -----------------------------------------------------------------------------------


def test_merged_reports_weigh_by_samples() -> None:
    few = _sampler(Relaxation("allow", 0.2)).sample([0, 1], 0).report
    many = _sampler(Relaxation("allow", 1.0)).sample([0] * 6, 2).report
    both = Report.merge([few, many])
    assert both.tv_bound == pytest.approx((2 * few.tv_bound + 6 * many.tv_bound) / 8)
    assert both.tv_bound == pytest.approx(np.mean(both.tv_bound_by_sample))
    assert both.tv_estimate == pytest.approx(np.mean(both.tv_estimate_by_sample))
    assert both.tv_bound_by_sample == few.tv_bound_by_sample + many.tv_bound_by_sample
    record = json.loads(both.to_json())
    assert record["tv_bound"] == both.tv_bound
    assert record["tv_bound_by_sample"] == both.tv_bound_by_sample


# --- bad input ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"rule": "soft"}, ValueError, "rule must be one of 'temper', 'allow', got 'soft'"),
        ({"strength": -0.5}, ValueError, "strength must be finite and >= 0, got -0.5"),
        ({"strength": math.nan}, ValueError, "strength must be finite and >= 0, got nan"),
        ({"strength": math.inf}, ValueError, "strength must be finite and >= 0, got inf"),
        ({"strength": "1"}, TypeError, "strength must be a number, got str"),
        ({"strength": True}, TypeError, "strength must be a number, got bool"),
        ({"tv_budget": -0.1}, ValueError, r"tv_budget must be in \[0, 1\] or None, got -0.1"),
        ({"tv_budget": 1.1}, ValueError, r"tv_budget must be in \[0, 1\] or None, got 1.1"),
        ({"tv_budget": math.nan}, ValueError, r"tv_budget must be in \[0, 1\] or None, got nan"),
        ({"tv_budget": "0.1"}, TypeError, "tv_budget must be a number, got str"),
        (
            {"uncertainty": "entropy"},
            ValueError,
            "uncertainty must be one of 'discrepancy', 'learned_variance' or a table, got 'ent",
        ),
        ({"uncertainty": [0.0, math.nan]}, ValueError, "uncertainty must be finite, got nan"),
        ({"uncertainty": [[0.0]]}, ValueError, r"uncertainty must be a vector, got shape \(1, 1\)"),
        ({"uncertainty": 1.0}, ValueError, r"uncertainty must be a vector, got shape \(\)"),
        ({"uncertainty": ["a"]}, TypeError, r"uncertainty must be a name or a vector, got \['a'\]"),
        ({"uncertainty": None}, ValueError, "uncertainty must be"),
    ],
)
def test_bad_arguments(arguments: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=f"^{message}"):
        Relaxation(**arguments)


def test_it_is_a_frozen_value() -> None:
    relaxation = Relaxation("allow", 1, 0.5, np.array([1.0, 2.0]))
    assert relaxation.uncertainty == (1.0, 2.0)
    assert relaxation == Relaxation("allow", 1.0, 0.5, [1, 2])
    assert hash(relaxation) == hash(dataclasses.replace(relaxation))
    with pytest.raises(dataclasses.FrozenInstanceError):
        relaxation.strength = 2.0  # type: ignore[misc]


def test_what_does_not_fit_the_sampler() -> None:
    with pytest.raises(
        ValueError, match=r"^uncertainty must have one entry per transition \(30\), got 29$"
    ):
        _sampler(Relaxation(uncertainty=[0.0] * 29))
    with pytest.raises(
        ValueError,
        match="^relaxation must be None unless verifier is 'reflection', whose decisions are about "
        "one draft each; got verifier 'block'$",
    ):
        _sampler(Relaxation(), verifier="block")
    with pytest.raises(TypeError, match="^relaxation must be a Relaxation or None, got 'temper'$"):
        _sampler("temper")  # type: ignore[arg-type]
    flow = Schedule([2, 1, 0], [1.0, 1.0, 1.0], [-0.3] * 3, [0.5, 0.5, 0.0])
    with pytest.raises(
        ValueError,
        match="^schedule must be variance-preserving for uncertainty 'learned_variance', which is "
        "relative to its posterior variance$",
    ):
        _sampler(Relaxation(uncertainty="learned_variance"), schedule=flow)
