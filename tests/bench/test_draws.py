"""Batches of one sampler: where their memory is measured, and what is kept."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from free import DiT, DiTConfig, Schedule, SequentialSampler
from free import devices as memory
from free.bench.draws import Draws
from free.bench.rows import ROWS

CONFIG = DiTConfig(8, 4, 1, 16, 1, 2, num_classes=3, learn_sigma=False)


def _draws(teacher: Any, samples: torch.Tensor) -> Draws:
    draws = Draws(ROWS[0], "DDPM", SequentialSampler(teacher, Schedule.ddpm(2)), 3, 2, 0)
    result = SimpleNamespace(samples=samples, report=None)
    draws.sampler = SimpleNamespace(sample=lambda *_: result)  # type: ignore[assignment]
    return draws


def test_memory_is_measured_where_the_networks_are(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[tuple[str, torch.device]] = []
    monkeypatch.setattr(memory, "reset_peak", lambda device: calls.append(("reset", device)))
    monkeypatch.setattr(memory, "peak", lambda device: calls.append(("peak", device)) or 7)
    # A module: it has no attribute that says where it is.
    draws = _draws(DiT(CONFIG).to("meta"), torch.zeros(2, 1, 8, 8))
    draws()
    draws()
    assert calls == [(what, torch.device("meta")) for what in ("reset", "reset", "peak")]
    assert draws.peak == 7


def test_images_are_kept_on_the_cpu() -> None:
    """Where they take no memory from what is measured; copying them waits for the GPU."""
    copies: list[str] = []

    class Samples(torch.Tensor):
        def cpu(self, *_: Any, **__: Any) -> torch.Tensor:
            copies.append("cpu")
            return self.as_subclass(torch.Tensor)

    draws = _draws(DiT(CONFIG), torch.zeros(2, 1, 8, 8).as_subclass(Samples))
    draws()
    assert copies == ["cpu"]
    assert [type(one) for one in draws.samples] == [torch.Tensor] * 2


def test_memory_of_a_gpu_is_that_of_its_tensors(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[torch.device] = []
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", asked.append)
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda at: asked.append(at) or 5)
    device = torch.device("cuda", 1)
    memory.reset_peak(device)
    assert memory.peak(device) == 5
    assert asked == [device, device]
