"""Where the time goes is found where it is spent."""

import json
import time
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from free import Schedule, SequentialSampler, SpeculativeSampler, TeacherOutput
from free.bench import phases, profiled
from free.rounds.report import PHASE_MARK


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
    assert "verify" not in profiled(sampler, [[0]]).phases
    assert PHASE_MARK.get() is before
    with pytest.raises(ValueError, match="batches must be at least one, got none"):
        profiled(sampler, [])


def test_on_a_gpu_each_phase_waits_for_its_own_work(monkeypatch: pytest.MonkeyPatch) -> None:
    waited: list[torch.device] = []

    def synchronize(device: torch.device) -> None:
        waited.append(device)
        time.sleep(0.01)

    device = torch.device("cuda", 1)
    monkeypatch.setattr(torch.cuda, "synchronize", synchronize)
    monkeypatch.setattr(phases, "device_of", lambda teacher: device)
    monkeypatch.setattr(torch.profiler, "profile", lambda activities: _NoProfiler())
    found = profiled(SequentialSampler(_Slow(), Schedule.ddpm(3)), [[0]])
    # Of three steps, teacher (call and means) and bookkeeping (noise, state, advance); of the loop.
    assert waited == [device] * (3 * 5 + 2)
    assert found.phases["bookkeeping"] > 0.01  # the wait is in the phase


class _NoProfiler(nullcontext):
    """Of a GPU, which is not here."""

    def __enter__(self) -> SimpleNamespace:
        return SimpleNamespace(events=list)


def test_operators_of_a_gpu_are_those_with_kernels() -> None:
    cpu, cuda = torch.autograd.DeviceType.CPU, torch.autograd.DeviceType.CUDA

    def event(name: str, host: float, kernels: float, above: Any = None, at: Any = cpu) -> Any:
        return SimpleNamespace(name=name, device_type=at, self_cpu_time_total=host,
                               self_device_time_total=kernels, cpu_parent=above)  # fmt: skip

    phase = event("free::teacher", 50.0, 0.0)
    events = [phase, event("aten::mm", 3.0, 9.0, phase), event("aten::size", 2.0, 0.0)]
    events.append(event("gemm", 0.0, 9.0, at=cuda))
    for on_gpu, expected in (
        (False, [("teacher", "aten::mm", 3e-6), ("elsewhere", "aten::size", 2e-6)]),
        (True, [("teacher", "aten::mm", 9e-6)]),
    ):
        found = phases._operators(events, 1, on_gpu)
        assert [(one.phase, one.name, one.seconds) for one in found] == expected
