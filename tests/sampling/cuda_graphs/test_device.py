"""The samplers with graphs on a pretend CUDA device: devices, waiting, and what replays leave out.

What it can show is said in ``tests/pretend_cuda.py``.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from free import (
    DiT,
    DiTConfig,
    DrafterNet,
    FeatureDrafter,
    Relaxation,
    SamplingResult,
    Schedule,
    SequentialSampler,
    SpeculativeSampler,
    TeacherOutput,
)
from free.rounds.report import Recorder
from free.rounds.round import Rounds
from free.sampling.cuda_graphs import Graphs
from free.schedule.clipping import Clipping
from tests.networks import randomized
from tests.pretend_cuda import (
    CUDA,
    DeviceError,
    OnDevice,
    PretendCuda,
    on_device,
    pretend_cuda,
    values,
)
from tests.sampling.cuda_graphs.captures import Guessing, repeated

CONFIG = DiTConfig(8, 4, 4, 32, 1, 2, num_classes=3)

LABELS = [0, 1, 2, 0, 0]


class Small(nn.Module):
    """A teacher of few ops, as each takes long on the pretend device."""

    num_classes, null_label, sample_shape = 3, 3, (4, 4, 4)

    def __init__(self) -> None:
        super().__init__()
        self.mix, self.label = nn.Linear(4, 4), nn.Embedding(4, 4)

    def forward(self, x: Tensor, t: Tensor, y: Tensor) -> TeacherOutput:
        shift = self.label(y) + t[:, None] / 1000
        return TeacherOutput(torch.tanh(x + self.mix(x) + shift[:, None, None]))


SMALL, DIT = randomized(Small()), randomized(DiT(CONFIG))
NETWORK = randomized(DrafterNet(CONFIG), 1)


class Near(Guessing):
    """The teacher, but for an error that depends on the label."""

    def __init__(self, teacher: nn.Module, error: Tensor) -> None:
        super().__init__(teacher)
        self.error = error

    def predict(self, x: Tensor, k: Tensor, y: Tensor, carry: Any) -> Any:
        eps, carry = super().predict(x, k, y, carry)
        return eps + self.error[y][:, None, None, None], carry


ERROR = torch.tensor([0.002, 0.5, 0.004])


def every_part(clipping: Clipping) -> Schedule:
    """A law with all that a transition may have: a history, limits, times between whole ones, a
    scaled input, an interval that is guided.
    """
    plain = Schedule.repa(8, guided=(0.2, 0.7))
    c = -0.2 * plain.b
    c[0] = 0.0
    scale = np.linspace(0.5, 1.0, 8)
    return dataclasses.replace(plain, b=plain.b - c, c=c, clipping=clipping, input_scale=scale)


LAWS = {"limited": every_part(Clipping(1.5)), "thresholded": every_part(Clipping(1.5, 0.9))}


def build(
    place: Callable[[Any], Any] = lambda network: network,
    window: int = 4,
    drafter: Any = None,
    steps: int = 8,
    law: str | None = None,
    **options: Any,
) -> Any:
    """A sampler with its networks in their ``place``; the plain one for a window of 1."""
    silent = options.get("verifier") == "tolerance"
    schedule = Schedule.ddpm(steps, stochasticity=float(not silent))
    schedule = schedule if law is None else LAWS[law]
    teacher = place(DIT if drafter == "feature" or "cfg_channels" in options else SMALL)
    if window == 1:
        return SequentialSampler(teacher, schedule, **options)
    if drafter == "feature":
        drafter = FeatureDrafter(place(NETWORK), teacher)
    drafter = drafter or Near(teacher, place(ERROR))
    return SpeculativeSampler(teacher, drafter, schedule, window, **options)


def run(graph: bool = True, **options: Any) -> tuple[SamplingResult, Any, PretendCuda]:
    with pretend_cuda() as device:
        sampler = build(lambda x: (OnDevice if isinstance(x, Tensor) else on_device)(x), **options)
        sampler._graphs = Graphs(graph, device.capture)
        made = sampler.sample(LABELS, 5)
    assert made.samples.device == CUDA
    assert made.report.execution == ("graph" if graph else "eager: as asked")
    return made, sampler, device


def same(made: SamplingResult, graph: bool = True, **options: Any) -> None:
    """As the CPU makes them; exactly, as the same kernels get the same shapes."""
    sampler = build(**options)
    sampler._graphs = Graphs(graph, repeated)
    with sdpa_kernel(SDPBackend.MATH):  # the pretend device's
        expected = sampler.sample(LABELS, 5)
    assert torch.equal(values(made.samples), expected.samples)
    report, right = made.report, expected.report
    for count in ("rounds", "rounds_by_sample", "teacher_rows", "tv_bound_by_sample"):
        assert getattr(report, count) == getattr(right, count), count
    assert report.examined_by_step == right.examined_by_step
    assert report.accepted_by_step == right.accepted_by_step


# --- the samplers --------------------------------------------------------------------------------


OPTIONS = [
    {"window": 1, "steps": 2},
    {"window": 1, "cfg_scale": 1.5, "cfg_channels": 3},
    {"recycle": False, "sweeps": None},
    {"recycle": "reuse", "sweeps": None},
    {"recycle": True, "sweeps": 1},
    {"sweeps": 2, "verifier": "block"},
    {"sweeps": 1, "relaxation": Relaxation("allow", 0.3, tv_budget=0.5)},
    {"sweeps": 1, "relaxation": Relaxation("allow", 0.3, uncertainty=[0.1] * 8)},
    {"drafter": "frozen", "sweeps": 1, "recycle": "response", "window": 2},
    {"drafter": "feature", "cfg_scale": 1.5, "cfg_channels": 3},
    {"drafter": "feature", "cfg_scale": 1.5, "sweeps": 2, "recycle": True},
    {"window": 2, "steps": 2},
    {"law": "limited", "sweeps": 1, "recycle": "response", "cfg_scale": 1.5},
    {"law": "limited", "sweeps": 2, "verifier": "block"},
    {"law": "thresholded", "window": 1},
    {"law": "thresholded", "sweeps": 1, "recycle": "reuse"},
    {"verifier": "tolerance", "tolerance": 0.02, "sweeps": 1, "recycle": True, "steps": 5},
]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_the_samplers(options: dict[str, Any]) -> None:
    made, _, _ = run(**options)
    if "drafter" not in options and "steps" not in options and options.get("window") != 1:
        assert 0 < made.report.acceptance < 1
    same(made, **options)


def test_the_eager_sampler() -> None:
    options: dict[str, Any] = {"graph": False, "sweeps": 2, "recycle": True}
    made, _, _ = run(**options)
    same(made, **options)


@pytest.mark.parametrize("kept", [True, "cpu"])
def test_a_trajectory_is_kept_where_it_is_asked_for(kept: bool | str) -> None:
    place = lambda x: (OnDevice if isinstance(x, Tensor) else on_device)(x)  # noqa: E731
    with pretend_cuda():
        found = build(place, **QUICK).sample(LABELS, 5, trajectory=kept).trajectory
    assert {part.device for part in found} == {torch.device("cpu") if kept == "cpu" else CUDA}
    with sdpa_kernel(SDPBackend.MATH):
        expected = build(**QUICK).sample(LABELS, 5, trajectory=True).trajectory
    for part, right in zip(found, expected, strict=True):
        assert torch.equal(part if kept == "cpu" else values(part), right)


def test_no_transition_of_the_plain_sampler_is_waited_for() -> None:
    waits = [run(window=1, steps=steps)[2].waits for steps in (5, 15)]
    assert waits[0] == waits[1]


# --- bugs that it finds --------------------------------------------------------------------------


def planted(monkeypatch: pytest.MonkeyPatch, bug: Callable[[Tensor], Any]) -> None:
    """After each round, ``bug(states)`` in place of the states."""
    advance = Rounds.advance

    def wrong(self: Rounds, *given: Any, **more: Any) -> Any:
        samples = advance(self, *given, **more)
        return samples._replace(x=bug(samples.x))

    monkeypatch.setattr(Rounds, "advance", wrong)


QUICK = {"sweeps": 1, "steps": 4}

BUGS = {
    "a look": lambda x: x + 0 * x.sum().item(),
    "a decision": lambda x: x if (x == x).all() else -x,
    "a mask": lambda x: x.index_put((torch.ones_like(x[:, 0, 0, 0]) > 0,), x),
    "a constant": lambda x: x + torch.zeros(4).to(x.device),
    "a list": lambda x: x + torch.tensor([0.0] * 4, device=x.device),
    "a copy": lambda x: x.cpu().to(x.device),
    "indices": lambda x: x[torch.arange(len(x))],
}


@pytest.mark.parametrize("bug", BUGS)
def test_waiting_in_a_round_is_found(bug: str, monkeypatch: pytest.MonkeyPatch) -> None:
    planted(monkeypatch, BUGS[bug])
    with pytest.raises(DeviceError, match="waits for the device, or copies to or from it"):
        run(**QUICK)


def test_a_log_on_two_devices_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """That of the first round is made on the CPU."""
    count = Recorder.round

    def wrong(self: Recorder, *columns: Any, **more: Any) -> None:
        if self._rounds:
            columns = tuple(torch.as_tensor(column, device=CUDA) for column in columns)
        count(self, *columns, **more)

    monkeypatch.setattr(Recorder, "round", wrong)
    with pytest.raises(DeviceError, match="cat.default on two devices"):
        run(**QUICK)


def test_python_in_a_round_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """It counts calls; replays make none."""
    calls: list[int] = []
    planted(monkeypatch, lambda x: (calls.append(0), x * (1 + 1e-2 * len(calls)))[1])
    many, _, _ = run(graph=False, **QUICK)
    calls.clear()
    made, _, _ = run(**QUICK)
    assert (values(made.samples) - values(many.samples)).abs().max() > 1
    assert len(calls) % 4 == 0  # three to warm up, and the capture


def test_memory_that_graphs_use_again_is_found() -> None:
    outputs: list[Tensor] = []
    with pretend_cuda() as device:
        x = OnDevice(torch.ones(3))
        first = device.capture(lambda: outputs.append(x + 1), CUDA)
        second = device.capture(lambda: x * 2, CUDA)
        first()
        assert values(outputs[-1]).tolist() == [2, 2, 2]
        second()
    assert values(outputs[-1]).isnan().all()


def test_reading_before_a_copy_has_arrived_is_found() -> None:
    place = torch.zeros(3)
    with pretend_cuda():
        place.copy_(OnDevice(torch.ones(3)), non_blocking=True)
        assert place.tolist() == [0, 0, 0]
        torch.cuda.current_stream(CUDA).synchronize()
    assert place.tolist() == [1, 1, 1]


def test_a_constant_on_the_cpu_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    planted(monkeypatch, lambda x: x + torch.zeros(4))
    with pytest.raises(DeviceError, match=r"add.Tensor on two devices: of shapes \[\[4\]\]"):
        run(graph=False, **QUICK)


def test_a_network_that_was_left_behind_is_found() -> None:
    with pretend_cuda():
        sampler = build(on_device, window=1, cfg_channels=3)
        sampler._graphs = Graphs(False)
        sampler.teacher.final_layer = DIT.final_layer
        with pytest.raises(DeviceError, match="on two devices"):
            sampler.sample([0], 0)
