"""Devices that are not there, and networks on several. Without a GPU: torch's fake tensors say that
they are on one, and "meta" is another device than the CPU.
"""

from __future__ import annotations

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
from free.devices import device_of, find_device, require_device
from free.engines.networks import EngineDrafter
from free.models.sigma import SigmaNet
from tests.networks import CallableDrafter, MixtureTeacher, randomized

NO_CUDA = pytest.mark.skipif(torch.version.cuda is not None, reason="this torch has CUDA")
CONFIG = DiTConfig(8, 4, 1, 16, 1, 2, num_classes=3, learn_sigma=False)
SCHEDULE = Schedule.ddpm(10)


def networks() -> tuple[DiT, DrafterNet]:
    teacher, network = randomized(DiT(CONFIG)), randomized(DrafterNet(CONFIG), 1)
    assert isinstance(teacher, DiT)
    assert isinstance(network, DrafterNet)
    return teacher, network


# --- finding one ---------------------------------------------------------------------------------


@NO_CUDA
def test_a_torch_without_cuda() -> None:
    with pytest.raises(ValueError, match=r"--device must be one that this machine has, got 'cuda'"):
        find_device("cuda", "--device")
    with pytest.raises(ValueError, match=r"take cpu, or install a torch .*\(pytorch.org\)$"):
        find_device("cuda:1")
    with pytest.raises(ValueError, match=r"^(?!.*pytorch.org)"):
        find_device("tpu")


@NO_CUDA
def test_what_is_loaded_to_a_device_that_is_not_there() -> None:
    for load in (load_pretrained, DiT.from_pretrained, DrafterNet.from_pretrained):
        with pytest.raises(ValueError, match="^device must be one that .* got 'cuda': "):
            load("mnist", device=torch.device("cuda"))


def test_a_driver_that_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    def empty(*_: object, **__: object) -> Tensor:
        raise RuntimeError("Found no NVIDIA driver on your system. Please install one.\nMore.")

    monkeypatch.setattr(torch, "empty", empty)
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    with pytest.raises(ValueError, match=r"got 'cuda': Found no NVIDIA .* Please install one\.$"):
        find_device("cuda")


def test_a_gpu_without_kernels_serves() -> None:
    """By the twins; tests/ops/test_operator.py has the warning."""
    with FakeTensorMode():
        assert find_device("cuda").type == "cuda"
    assert find_device("cpu") == torch.device("cpu")


# --- where networks are --------------------------------------------------------------------------


def test_where_a_network_is() -> None:
    assert device_of(torch.nn.Linear(2, 2, device="meta")) == torch.device("meta")
    assert device_of(lambda x: x) is None
    assert device_of(torch.nn.ReLU()) is None

    class Engine:
        device = "cuda:1"

    assert device_of(Engine()) == torch.device("cuda", 1)


def test_a_device_without_an_index_is_the_current_one() -> None:
    network = torch.nn.Linear(2, 2, device="meta")
    require_device(torch.device("meta", 0), network=network, function=len)
    with pytest.raises(ValueError, match="network must be on .*, cuda:0, got meta"):
        require_device(torch.device("cuda", 0), network=network)


def test_two_gpus_are_two_devices() -> None:
    class Engine:
        device = torch.device("cuda", 1)

    require_device(torch.device("cuda", 1), drafter=Engine())
    with pytest.raises(ValueError, match="drafter must be on .*, cuda:0, got cuda:1"):
        require_device(torch.device("cuda", 0), drafter=Engine())


# --- networks on several -------------------------------------------------------------------------


def test_a_drafter_elsewhere_than_the_teacher() -> None:
    teacher, network = networks()
    drafter = FeatureDrafter(network.to("meta"), teacher)
    sampler = SpeculativeSampler(teacher, drafter, SCHEDULE, 4)
    with pytest.raises(ValueError, match="drafter must be on .* teacher and states, cpu, got meta"):
        sampler.sample([0, 1])


def test_a_drafter_of_a_teacher_elsewhere() -> None:
    teacher, network = networks()
    other, _ = networks()
    drafter = FeatureDrafter(network, other.to("meta"))
    sampler = SpeculativeSampler(teacher, drafter, SCHEDULE, 4)
    with pytest.raises(ValueError, match=r"drafter.teacher must be on .* cpu, got meta"):
        sampler.sample([0, 1])


def test_a_drafter_on_an_engine_elsewhere() -> None:
    teacher, _ = networks()

    class Session:
        device = torch.device("cuda", 1)

    drafter = EngineDrafter({"drafter": Session()}, CONFIG, 4, 1)  # type: ignore[dict-item]
    sampler = SpeculativeSampler(teacher, drafter, SCHEDULE, 4)
    with pytest.raises(ValueError, match="drafter must be on .* states, cpu, got cuda:1"):
        sampler.sample([0, 1])


@pytest.mark.parametrize("plain", [True, False])
def test_a_variance_network_elsewhere(plain: bool) -> None:
    teacher, _ = networks()
    schedule = Schedule.ddpm(10, variance=SigmaNet(1).to("meta"))
    sampler = (
        SequentialSampler(teacher, schedule)
        if plain
        else SpeculativeSampler(teacher, "frozen", schedule, 4)
    )
    with pytest.raises(ValueError, match="variance must be on .* states, cpu, got meta"):
        sampler.sample([0, 1])


def test_networks_that_answer_elsewhere() -> None:
    teacher = MixtureTeacher(4)

    class Elsewhere(MixtureTeacher):
        def __call__(self, x: Tensor, t: Tensor, y: Tensor) -> TeacherOutput:
            return TeacherOutput(torch.empty_like(x, device="meta"))

    with pytest.raises(ValueError, match="teacher must return an eps on .* cpu, got meta"):
        SequentialSampler(Elsewhere(4), SCHEDULE).sample([0, 1])
    drafter = CallableDrafter(Elsewhere(4))
    with pytest.raises(ValueError, match="drafter must return an eps on .* cpu, got meta"):
        SpeculativeSampler(teacher, drafter, SCHEDULE, 4).sample([0, 1])
