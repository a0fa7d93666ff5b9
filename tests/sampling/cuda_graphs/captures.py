"""Captures that call the function again, and samplers to capture."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from free import SamplingResult, Schedule, SpeculativeSampler
from free.sampling.cuda_graphs import Graphs
from tests.networks import CallableDrafter, MixtureTeacher

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
