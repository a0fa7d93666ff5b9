"""What networks do to the tensors they are given: it is refused, or changes nothing."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from free import Schedule, SpeculativeSampler, TeacherOutput
from tests.networks import AnchoredDrafter, CallableDrafter, MixtureTeacher

SCHEDULE = Schedule.ddpm(30)


class Echo(CallableDrafter):
    """Answers with what it was given: as it is, or a copy."""

    def __init__(self, copies: bool) -> None:
        self.copies = copies

    def begin(self, batch: Any) -> None:
        pass

    def carry_from(self, teacher_output: Any, rows: Tensor) -> None:
        return None

    def predict(self, x: Tensor, k: Tensor, y: Tensor, carry: None) -> tuple[Tensor, None]:
        return x.clone() if self.copies else x, None


@pytest.mark.parametrize("width", [1, 4])
@pytest.mark.parametrize("cfg_scale", [1.0, 1.5])
def test_a_teacher_that_writes_to_its_input_is_refused(cfg_scale: float, width: int) -> None:
    class Writes(MixtureTeacher):
        def __call__(self, x: Tensor, t: Tensor, y: Tensor) -> TeacherOutput:
            return super().__call__(x.mul_(0.9), t, y)

    made = SpeculativeSampler(Writes(4), "frozen", SCHEDULE, width, cfg_scale=cfg_scale)
    with pytest.raises(ValueError, match="^teacher must not write to the states that it is given"):
        made.sample([0, 1])


def test_a_drafter_that_writes_to_its_input_is_refused() -> None:
    class Writes(Echo):
        def predict(self, x: Tensor, k: Tensor, y: Tensor, carry: None) -> tuple[Tensor, None]:
            return x.neg_(), None

    made = SpeculativeSampler(MixtureTeacher(4), Writes(True), SCHEDULE, 4, sweeps=1)
    with pytest.raises(ValueError, match="^drafter must not write to the states that it is given"):
        made.sample([0, 1])


def test_a_teacher_that_writes_changes_no_draw_in_inference_mode() -> None:
    """Where nobody counts what is written: the states that are verified are others."""

    class Halves(MixtureTeacher):
        def __init__(self, writes: bool) -> None:
            super().__init__(4)
            self.writes = writes

        def __call__(self, x: Tensor, t: Tensor, y: Tensor) -> TeacherOutput:
            return super().__call__(x.mul_(0.9) if self.writes else x * 0.9, t, y)

    with torch.inference_mode():
        drawn = [
            SpeculativeSampler(Halves(writes), "frozen", SCHEDULE, 6, sweeps=1, recycle=True)
            .sample([0, 1, 2])
            .samples
            for writes in (True, False)
        ]
    assert torch.equal(*drawn)


class Told(AnchoredDrafter):
    """Says that x0 changes by the mean that it is told, which it may write to."""

    def __init__(self, way: str) -> None:
        super().__init__(MixtureTeacher(4, shift=0.15))
        self.way = way

    def change(self, x: Tensor, mean: Tensor, k: Tensor, y: Tensor, carry: Any) -> Any:
        if self.way == "returns":
            return mean, carry
        change, carry = super().change(x, mean.clone(), k, y, carry)
        if self.way == "writes":
            mean.zero_()
        return (mean.clone() if self.way == "copies" else change), carry


@pytest.mark.parametrize("sweeps", [1, 3, None])
def test_what_a_change_drafter_does_to_means_is_its_own(sweeps: int | None) -> None:
    drawn = {
        way: SpeculativeSampler(MixtureTeacher(4), Told(way), SCHEDULE, 5, sweeps=sweeps)
        .sample([0, 1, 2])
        .samples
        for way in ("returns", "copies", "writes", "only reads")
    }
    assert torch.equal(drawn["returns"], drawn["copies"])
    assert torch.equal(drawn["writes"], drawn["only reads"])


@pytest.mark.parametrize("sweeps", [1, 3, None])
def test_a_drafter_may_return_what_it_was_given(sweeps: int | None) -> None:
    """Without x0 its answer is the guess itself: states that are rolled on must not be it."""
    flow = Schedule(range(9, -1, -1), [1.0] * 10, [-0.1] * 10, [0.3] * 9 + [0.0])
    drawn = [
        SpeculativeSampler(MixtureTeacher(4), Echo(copies), flow, 5, sweeps=sweeps).sample([0], 5)
        for copies in (True, False)
    ]
    assert torch.equal(drawn[0].samples, drawn[1].samples)
    assert drawn[0].report.rounds == drawn[1].report.rounds
