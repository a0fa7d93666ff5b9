"""Devices that are not there, networks on several, and memory that is full. Without a GPU: torch's
fake tensors say that they are on one, and "meta" is another device than the CPU.
"""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from free import (
    DiT,
    DiTConfig,
    DrafterNet,
    FeatureDrafter,
    Schedule,
    SequentialSampler,
    SpeculativeSampler,
    TeacherOutput,
    load_pretrained,
)
from free.devices import allocated, device_of, find_device, require_device
from free.engines.networks import EngineDrafter
from free.models.sigma import SigmaNet
from tests.networks import CallableDrafter, MixtureTeacher, randomized
from tests.training import runs

NO_CUDA = pytest.mark.skipif(torch.version.cuda is not None, reason="this torch has CUDA")
CONFIG = DiTConfig(8, 4, 1, 16, 1, 2, num_classes=3, learn_sigma=False)
SCHEDULE = Schedule.ddpm(10)
ON_GPU_1: Any = SimpleNamespace(device=torch.device("cuda", 1))
FULL = "CUDA out of memory. Tried to allocate 2.00 GiB."


def raising(error: Exception) -> Any:
    def call(*_: object, **__: object) -> Any:
        raise error

    return call


# --- finding one ---------------------------------------------------------------------------------


@NO_CUDA
def test_a_torch_without_cuda() -> None:
    with pytest.raises(ValueError, match=r"--device must be one that this machine has, got 'cuda'"):
        find_device("cuda", "--device")
    with pytest.raises(ValueError, match=r"take cpu, or install a torch .*\(pytorch.org\)$"):
        find_device("cuda:1")
    with pytest.raises(ValueError, match=r"^(?!.*pytorch.org)"):
        find_device("tpu")
    for load in (load_pretrained, DiT.from_pretrained, DrafterNet.from_pretrained):
        with pytest.raises(ValueError, match="^device must be one that .* got 'cuda': "):
            load("mnist", device=torch.device("cuda"))


def test_a_driver_that_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    text = "Found no NVIDIA driver on your system. Please install one.\nMore."
    monkeypatch.setattr(torch, "empty", raising(RuntimeError(text)))
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    with pytest.raises(ValueError, match=r"got 'cuda': Found no NVIDIA .* Please install one\.$"):
        find_device("cuda")


def test_a_gpu_without_kernels_serves() -> None:
    """By the twins; tests/ops/test_operator.py has the warning."""
    with FakeTensorMode():
        assert find_device("cuda").type == "cuda"
    assert find_device("cpu") == torch.device("cpu")


# --- networks on several -------------------------------------------------------------------------


def test_where_a_network_is() -> None:
    network = torch.nn.Linear(2, 2, device="meta")
    assert device_of(network) == torch.device("meta")
    assert device_of(len) is None
    assert device_of(torch.nn.ReLU()) is None
    assert device_of(SimpleNamespace(device="cuda:1")) == torch.device("cuda", 1)
    # Without an index it is the current one.
    require_device(torch.device("meta", 0), network=network, function=len)
    require_device(torch.device("cuda", 1), drafter=ON_GPU_1)
    for name, other, place in (("network", network, "meta"), ("drafter", ON_GPU_1, "cuda:1")):
        with pytest.raises(ValueError, match=f"{name} must be on .*, cuda:0, got {place}"):
            require_device(torch.device("cuda", 0), **{name: other})


@pytest.mark.parametrize(
    ("place", "message"),
    [
        ("drafter", "drafter must be on .* teacher and states, cpu, got meta"),
        ("drafter's teacher", "drafter.teacher must be on .* cpu, got meta"),
        ("engine", "drafter must be on .* states, cpu, got cuda:1"),
        ("variance", "variance must be on .* states, cpu, got meta"),
        ("variance of the plain sampler", "variance must be on .* states, cpu, got meta"),
    ],
)
def test_a_network_elsewhere_than_the_teacher(place: str, message: str) -> None:
    teacher, other = randomized(DiT(CONFIG)), randomized(DiT(CONFIG))
    network, schedule, drafter = randomized(DrafterNet(CONFIG), 1), SCHEDULE, "frozen"
    if place == "drafter":
        drafter = FeatureDrafter(network.to("meta"), teacher)
    elif place == "drafter's teacher":
        drafter = FeatureDrafter(network, other.to("meta"))
    elif place == "engine":
        drafter = EngineDrafter({"drafter": ON_GPU_1}, CONFIG, 4, 1)
    else:
        schedule = Schedule.ddpm(10, variance=SigmaNet(1).to("meta"))
    sampler: Any = SpeculativeSampler(teacher, drafter, schedule, 4)
    if place == "variance of the plain sampler":
        sampler = SequentialSampler(teacher, schedule)
    with pytest.raises(ValueError, match=message):
        sampler.sample([0, 1])


def test_networks_that_answer_elsewhere() -> None:
    class Elsewhere(MixtureTeacher):
        def __call__(self, x: Tensor, t: Tensor, y: Tensor) -> TeacherOutput:
            return TeacherOutput(torch.empty_like(x, device="meta"))

    with pytest.raises(ValueError, match="teacher must return an eps on .* cpu, got meta"):
        SequentialSampler(Elsewhere(4), SCHEDULE).sample([0, 1])
    drafter = CallableDrafter(Elsewhere(4))
    with pytest.raises(ValueError, match="drafter must return an eps on .* cpu, got meta"):
        SpeculativeSampler(MixtureTeacher(4), drafter, SCHEDULE, 4).sample([0, 1])


# --- memory that is full -------------------------------------------------------------------------


class Full(MixtureTeacher):
    """Has no room for more than some rows."""

    def __init__(self, room: int = 0) -> None:
        super().__init__(4)
        self.room = room

    def __call__(self, x: Tensor, t: Tensor, y: Tensor) -> TeacherOutput:
        if len(x) > self.room:
            raise torch.OutOfMemoryError(FULL)
        return super().__call__(x, t, y)


NEAR = CallableDrafter(MixtureTeacher(4))  # the first transition is a plain one


@pytest.mark.parametrize(
    ("sampler", "batch", "message"),
    [
        ((Full(6), NEAR, SCHEDULE, 8), 3, r"3 with window 8: teacher calls of up to 24 rows \(3"),
        ((Full(6), NEAR, SCHEDULE, 8, 1.5), 3, r"48 rows \(3 samples x 8 rows x 2 for guidance\)"),
        ((Full(), SCHEDULE), 2, "batch of 2 with window 1: .* 2 rows"),
        ((Full(), "frozen", Schedule.ddpm(4), 300), 1, "batch of 1 with window 4: .* 4 rows"),
    ],
)
def test_a_run_without_memory(sampler: Any, batch: int, message: str) -> None:
    """The error says what was asked for, and what would need less."""
    full = rf"{message}.*0.00 GiB allocated.*a smaller window.*{FULL}$"
    kind = SequentialSampler if len(sampler) == 2 else SpeculativeSampler
    with pytest.raises(torch.OutOfMemoryError, match=full) as caught:
        kind(*sampler).sample([0, 1, 0][:batch])
    assert str(caught.value.__cause__) == FULL


def test_other_errors_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    error = RuntimeError("CUDA error: an illegal memory access was encountered")
    monkeypatch.setattr(MixtureTeacher, "__call__", raising(error))
    with pytest.raises(RuntimeError, match="^CUDA error: an illegal"):
        SequentialSampler(MixtureTeacher(4), SCHEDULE).sample([0, 1])


def test_a_step_of_training_without_memory(tmp_path: Path) -> None:
    full = raising(torch.OutOfMemoryError(FULL))
    with pytest.raises(torch.OutOfMemoryError) as caught:
        runs.run(tmp_path, 2, loss=full, micro_batch=4)
    assert str(caught.value) == (
        "out of memory in a training step of 8 images in 1 process, 4 a pass, 0.00 GiB allocated. "
        f"A smaller micro_batch or gradient_checkpointing or precision bf16 needs less. {FULL}"
    )


def test_what_is_allocated_is_the_devices_own(monkeypatch: pytest.MonkeyPatch) -> None:
    devices: list[object] = []
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda d: devices.append(d) or 3 * 2**29)
    assert allocated(torch.device("cuda", 1)) == "1.50 GiB allocated"
    allocated(torch.device("cpu"))
    allocated(None)
    assert devices == [torch.device("cuda", 1), None, None]
