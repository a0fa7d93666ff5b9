"""Measuring what rounds cost."""

import pytest

from free import AutoWindow, Schedule, SpeculativeSampler, TeacherOutput


@pytest.mark.parametrize("steps", [2, 3, 20, 63])
def test_runs_shorter_than_the_widest_window(steps: int) -> None:
    def teacher(x, t, y):  # type: ignore[no-untyped-def]
        return TeacherOutput(0.1 * x)

    teacher.num_classes = 3  # type: ignore[attr-defined]
    rule = AutoWindow(32)
    sampler = SpeculativeSampler(
        teacher, "frozen", Schedule.ddpm(steps), rule, sweeps=1, recycle="response"
    )
    assert sampler.sample([0], shape=(1, 4, 4)).report.steps == steps
    assert rule.basis is not None
    assert float(rule.basis.costs.teacher(1)) > 0
