"""Where the time goes is found where it is spent."""

import json
import time
from pathlib import Path

import pytest
import torch
from torch import Tensor

from free import Schedule, SequentialSampler, SpeculativeSampler, TeacherOutput
from free.bench import profiled
from free.report import PHASE_MARK


class _Slow:
    """A teacher that takes 20 ms and one matrix product."""

    sample_shape, num_classes = (1, 4, 4), 3

    def __call__(self, x: Tensor, t: Tensor, y: Tensor) -> TeacherOutput:
        time.sleep(0.02)
        torch.mm(torch.ones(2, 2), torch.ones(2, 2))
        return TeacherOutput(0.1 * x)


def test_phases_and_operators(tmp_path: Path) -> None:
    sampler = SpeculativeSampler(_Slow(), "frozen", Schedule.ddpm(12), 4, sweeps=1)
    told: list[int] = []
    trace = tmp_path / "trace.json"
    found = profiled(sampler, [[0], [1]], trace=trace, tell=told.append)
    assert len(told) == 4
    assert next(iter(found.phases)) == "teacher"
    assert found.phases["teacher"] > 0.02
    assert set(found.phases) == {"teacher", "draft", "verify", "bookkeeping", "elsewhere"}
    whole = found.report.seconds / found.report.rounds
    assert sum(found.phases.values()) == pytest.approx(whole, rel=1e-6)
    products = [operator for operator in found.operators if operator.name == "aten::mm"]
    assert [(operator.phase, operator.calls) for operator in products] == [("teacher", 1.0)]
    names = {event.get("name") for event in json.loads(trace.read_text())["traceEvents"]}
    assert {"free::teacher", "free::draft", "free::verify", "aten::mm"} <= names


def test_phases_are_marked_only_while_profiled() -> None:
    sampler = SequentialSampler(_Slow(), Schedule.ddpm(2))
    before = PHASE_MARK.get()
    profiled(sampler, [[0]])
    assert PHASE_MARK.get() is before
    with pytest.raises(ValueError, match="batches must be at least one, got none"):
        profiled(sampler, [])
