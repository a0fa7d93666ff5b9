"""Relaxation: its arguments, where uncertainties come from, the exact ends, and reports.

What it does to the law is in ``law/test_relaxation.py``.
"""

import json
import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import free.rounds.relaxation
from free import Relaxation, Report, Schedule, SpeculativeSampler, TeacherOutput
from tests.networks import CallableDrafter, MixtureTeacher

SCHEDULE = Schedule.ddpm(30)
POOR = CallableDrafter(MixtureTeacher(4, shift=0.15))


class Unsure(MixtureTeacher):
    def __call__(self, x: Tensor, t: Tensor, y: Tensor) -> TeacherOutput:
        return super().__call__(x, t, y)._replace(variance=x.sin())


def _sampler(relaxation: Relaxation | None, **options: Any) -> SpeculativeSampler:
    options = {"schedule": SCHEDULE, "window": 4} | options
    return SpeculativeSampler(Unsure(4), POOR, relaxation=relaxation, **options)


TABLE = np.linspace(-0.5, 2, 30)


@pytest.mark.parametrize(
    ("rule", "source", "cfg_scale", "recycle"),
    [
        ("temper", "discrepancy", 1.0, False),
        ("temper", "learned_variance", 1.5, True),
        ("temper", TABLE, 1.0, True),
        ("allow", "discrepancy", 1.5, True),
        ("allow", "learned_variance", 1.0, False),
        ("allow", TABLE, 1.5, False),
    ],
    ids=lambda value: "table" if value is TABLE else str(value),
)
def test_no_budget_and_no_strength_are_the_exact_sampler(rule, source, cfg_scale, recycle) -> None:
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


def _spied(
    relaxation: Relaxation, monkeypatch: pytest.MonkeyPatch, teacher: Any
) -> list[tuple[int, Tensor, Tensor]]:
    """Transition, uncertainty and state of each draft of a run."""
    drafts: list[Any] = []
    real, k = free.rounds.relaxation.verify_window_relaxed, 1  # the first one has no drafts

    def spy(states: Tensor, *rest: Any, length: Tensor, uncertainty: Any, **more: Any) -> Any:
        nonlocal k
        out = real(states, *rest, length=length, uncertainty=uncertainty, **more)
        for j in range(int(length) - 1):
            drafts.append((k + j, None if uncertainty is None else uncertainty[0, j], states[0, j]))
        k += int(out.advance)
        return out

    monkeypatch.setattr(free.rounds.relaxation, "verify_window_relaxed", spy)
    SpeculativeSampler(teacher, POOR, SCHEDULE, 4, relaxation=relaxation).sample([1], 5)
    assert k >= 29  # the last one has none where it is alone
    assert len(drafts) > 15
    return drafts


def test_where_uncertainties_come_from(monkeypatch) -> None:
    """Of the state that the transition starts from, averaged over it; by transition in a table."""
    upper = Schedule.ddpm(30, variance="upper").sigma[:-1]
    log_span = 2 * np.log(upper / SCHEDULE.sigma[:-1])
    relaxation = Relaxation(uncertainty="learned_variance")
    for k, u, x in _spied(relaxation, monkeypatch, Unsure(4)):
        share = float((x.sin().mean() + 1) / 2)
        assert float(u) == pytest.approx(share * log_span[k], rel=1e-4, abs=1e-6)
    monkeypatch.undo()
    relaxation = Relaxation("allow", 0.1, None, range(30))
    assert all(u == k for k, u, _ in _spied(relaxation, monkeypatch, MixtureTeacher(4)))
    monkeypatch.undo()  # the discrepancy is left to the op
    assert all(u is None for _, u, _ in _spied(Relaxation(), monkeypatch, MixtureTeacher(4)))


@pytest.mark.parametrize(
    ("variance", "error", "message"),
    [
        (None, ValueError, "^relaxation must not be by 'learned_variance' for a teacher without "
         "one: its TeacherOutput has variance None$"),
        (math.nan, FloatingPointError, "teacher returned a non-finite variance at step "
         r"\[8\] for sample \[1\]"),
    ],
)  # fmt: skip
def test_bad_variances(variance: float | None, error: type[Exception], message: str) -> None:
    class Broken(MixtureTeacher):
        def __call__(self, x: Tensor, t: Tensor, y: Tensor) -> TeacherOutput:
            part = None if variance is None else torch.zeros_like(x)
            if part is not None:
                part[-1, 2] = variance
            return super().__call__(x, t, y)._replace(variance=part)

    relaxation = Relaxation(uncertainty="learned_variance")
    sampler = SpeculativeSampler(Broken(4), POOR, SCHEDULE, relaxation=relaxation)
    with pytest.raises(error, match=message):
        sampler.sample([0, 1])


# --- reports -----------------------------------------------------------------------------------


def test_merged_reports_weigh_by_samples() -> None:
    few = _sampler(Relaxation("allow", 0.2)).sample([0, 1], 0).report
    many = _sampler(Relaxation("allow", 1.0)).sample([0] * 6, 2).report
    both = Report.merge([few, many])
    assert (both.samples, both.seeds) == (8, [0, 1, 2, 3, 4, 5, 6, 7])
    assert both.rounds == few.rounds + many.rounds
    assert both.parallel_efficiency == 30 * 8 / sum(both.rounds_by_sample)
    assert both.seconds == few.seconds + many.seconds
    assert both.tv_bound == pytest.approx((2 * few.tv_bound + 6 * many.tv_bound) / 8)
    assert both.tv_bound == pytest.approx(np.mean(both.tv_bound_by_sample))
    assert both.tv_estimate == pytest.approx(np.mean(both.tv_estimate_by_sample))
    assert both.tv_bound_by_sample == few.tv_bound_by_sample + many.tv_bound_by_sample
    record = json.loads(both.to_json())
    assert record["tv_bound"] == both.tv_bound
    assert record["tv_bound_by_sample"] == both.tv_bound_by_sample
    with pytest.raises(ValueError, match="reports must be of one schedule"):
        Report.merge([])


# --- bad input ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"rule": "soft"}, ValueError, "rule must be one of 'temper', 'allow', got 'soft'"),
        ({"strength": -0.5}, ValueError, "strength must be finite and >= 0, got -0.5"),
        ({"strength": math.nan}, ValueError, "strength must be finite and >= 0, got nan"),
        ({"strength": math.inf}, ValueError, "strength must be finite and >= 0, got inf"),
        ({"strength": 10**400}, ValueError, r"strength must be finite and >= 0, got 1.{,50}$"),
        ({"strength": "1"}, ValueError, "strength must be finite and >= 0, got '1'"),
        ({"tv_budget": -0.1}, ValueError, r"tv_budget must be in \[0, 1\] or None, got -0.1"),
        ({"tv_budget": math.nan}, ValueError, r"tv_budget must be in \[0, 1\] or None, got nan"),
        ({"tv_budget": "0.1"}, ValueError, r"tv_budget must be in \[0, 1\] or None, got '0.1'"),
        ({"uncertainty": "entropy"}, ValueError,
         "uncertainty must be one of 'discrepancy', 'learned_variance' or a table, got 'entropy'"),
        ({"uncertainty": [0.0, math.nan]}, ValueError, "uncertainty must be finite, got nan"),
        ({"uncertainty": [[0.0]]}, ValueError, r"uncertainty must be a vector, got shape \(1, 1\)"),
        ({"uncertainty": ["a"]}, TypeError, r"uncertainty must be a name or a vector, got \['a'\]"),
    ],
)  # fmt: skip
def test_bad_arguments(arguments: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=f"^{message}"):
        Relaxation(**arguments)


NO_IMAGE = Schedule([2, 1, 0], [1.0, 1.0, 1.0], [-0.3] * 3, [0.5, 0.5, 0.0])


@pytest.mark.parametrize(
    ("relaxation", "options", "error", "message"),
    [
        (Relaxation(uncertainty=[0.0] * 29), {}, ValueError,
         r"uncertainty must have one entry per transition \(30\), got 29"),
        (Relaxation(), {"verifier": "block"}, ValueError,
         "relaxation must be None unless verifier is 'reflection', whose decisions are about one "
         "draft each; got verifier 'block'"),
        ("temper", {}, TypeError, "relaxation must be a Relaxation or None, got 'temper'"),
        (Relaxation(uncertainty="learned_variance"), {"schedule": NO_IMAGE}, ValueError,
         "schedule must be variance-preserving for uncertainty 'learned_variance', which is "
         "relative to its posterior variance"),
    ],
)  # fmt: skip
def test_what_does_not_fit_the_sampler(relaxation, options, error, message) -> None:
    with pytest.raises(error, match=f"^{message}$"):
        _sampler(relaxation, **options)
