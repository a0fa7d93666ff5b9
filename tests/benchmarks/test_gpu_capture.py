"""The GPU benchmark's timing on a made-up device, and what it captures on one without values."""

from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensorMode

from free import Schedule


@pytest.fixture
def elsewhere(monkeypatch: pytest.MonkeyPatch) -> Iterator[torch.device]:
    """A device whose values nobody can look at, and which cannot be mixed with another."""
    generator = SimpleNamespace(manual_seed=lambda seed: None)
    with FakeTensorMode():  # which imports what needs the class
        monkeypatch.setattr(torch, "Generator", lambda device: generator)
        yield torch.device("meta")


def test_twins_can_be_captured(room: Any, elsewhere: torch.device) -> None:
    for name, batch, width, dim in room("kernels").cases(small=True):
        case = room("kernels").OPS[name](batch, width, dim, elsewhere)
        for result in (case.twin(**case.given), case.op(**case.given)):
            results = (result,) if isinstance(result, torch.Tensor) else result
            assert {each.device.type for each in results} == {"meta"}
    with pytest.raises(DataDependentOutputException):  # so that it would be noticed
        bool(results[0].sum() > 0)
    with pytest.raises(RuntimeError, match="same device"):
        results[0] + torch.ones(1)


@pytest.mark.parametrize(("guided", "sweeps"), [(False, None), (True, 1), (True, 2)])
def test_calls_and_parts_can_be_captured(room, elsewhere, monkeypatch, guided, sweeps) -> None:
    networks = room("networks")
    monkeypatch.setattr(networks, "_ready", lambda network: network.eval())  # looked at
    monkeypatch.setattr(torch.nn.Module, "to", lambda network, dtype: network)
    teacher, drafter = networks.teacher_and_drafter(networks.TINY, 256, elsewhere)
    with torch.no_grad():
        schedule, guidance = Schedule.ddpm(9), (4.0, 3) if guided else (1.0, None)
        calls = room("rows").network_calls(teacher, drafter, guidance[0], 3)
        work = room("parts").parts(teacher, drafter, schedule, guidance, 2, 4, sweeps)
        assert set(work) == set(room("parts").PARTS)
        for call in (*calls.values(), *work.values()):
            call()


class FakeGpu:
    """A device on which a call takes 5 us from the host, and 2 us in a graph; nothing runs."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, captures: bool = True) -> None:
        self.seconds = 0.0
        self.captured: int | None = None
        self.streams = ["default"]
        self.seen: list[tuple[str, bool]] = []  # of each call: stream, and whether captured
        self.captures = captures
        outer = self

        class Event:
            def __init__(self, enable_timing: bool) -> None:
                assert enable_timing

            def record(self) -> None:
                self.at = outer.seconds

            def synchronize(self) -> None:
                pass

            def elapsed_time(self, end: Any) -> float:
                return 1e3 * (end.at - self.at)

        class Graph:
            calls = 0

            def replay(self) -> None:
                outer.seconds += 2e-6 * self.calls

        @contextmanager
        def entered(stream: Any) -> Iterator[None]:
            self.streams.append(stream.name)
            yield
            self.streams.pop()

        @contextmanager
        def capture(graph: Graph, stream: Any) -> Iterator[None]:
            self.captured = 0
            with entered(stream):
                try:
                    yield
                finally:
                    graph.calls, self.captured = self.captured or 0, None

        def stream(name: str) -> Any:
            return SimpleNamespace(name=name, wait_stream=lambda other: None)

        fakes: dict[str, Any] = {
            "Event": Event,
            "CUDAGraph": Graph,
            "graph": capture,
            "Stream": lambda device: stream("side"),
            "stream": entered,
            "current_stream": lambda device: stream(self.streams[-1]),
            "synchronize": lambda device: None,
        }
        for name, fake in fakes.items():
            monkeypatch.setattr(torch.cuda, name, fake)

    def work(self) -> None:
        self.seen.append((self.streams[-1], self.captured is not None))
        if self.captured is None:
            self.seconds += 5e-6
        elif self.captures:
            self.captured += 1
        else:
            raise RuntimeError("operation not permitted when stream is capturing\nadvice")


def test_times_of_calls_and_of_replays(room: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    fake = FakeGpu(monkeypatch)
    clock = room("clock").Clock(torch.device("cuda"), samples=4, sample_seconds=1e-4)
    called = clock.called(fake.work)
    assert called.median == pytest.approx(5e-6)
    assert (called.samples, called.calls) == (4, 20)
    assert {stream for stream, _ in fake.seen} == {"default"}
    fake.seen.clear()
    replayed = clock.replayed(fake.work)
    assert replayed.median == replayed.minimum == pytest.approx(2e-6)
    assert replayed.calls == 60
    # Warmed up on the stream that is captured; all that is captured is 20 calls.
    assert fake.seen[-23:] == [("side", False)] * 3 + [("side", True)] * 20
