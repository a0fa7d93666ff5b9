"""What users meet on a GPU: networks on several devices, windows and memory that do not do, what
times and memory are of. As far as it goes without a GPU, test_devices and others test the same.
"""

from typing import Any

import pytest
import torch
from torch import Tensor

from free import (
    AutoWindow,
    DiT,
    DiTConfig,
    DrafterNet,
    FeatureDrafter,
    Schedule,
    SequentialSampler,
    SpeculativeSampler,
    TeacherOutput,
    ops,
)
from free.bench import profiled
from free.bench.draws import Draws
from free.bench.rows import ROWS
from free.devices import find_device
from tests.networks import randomized

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
SECOND = pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two CUDA devices")

CONFIG = DiTConfig(8, 4, 1, 16, 1, 2, num_classes=3, learn_sigma=False)
SCHEDULE = Schedule.ddpm(12)
LABELS, SEEDS = [0, 1, 2], [5, 6, 7]


def sampler(device: str, dtype: torch.dtype = torch.float32, **options: Any) -> SpeculativeSampler:
    teacher, network = randomized(DiT(CONFIG)), randomized(DrafterNet(CONFIG), 1)
    assert isinstance(teacher, DiT)
    assert isinstance(network, DrafterNet)
    drafter = FeatureDrafter(network.to(device, dtype), teacher.to(device, dtype))
    return SpeculativeSampler(
        teacher, drafter, SCHEDULE, 4, cfg_scale=1.5, **{"sweeps": 1, "recycle": True, **options}
    )


class Teacher:
    """Takes as many bytes as it is told to, for the length of a call."""

    sample_shape, num_classes, device = (1, 8, 8), 3, "cuda"

    def __init__(self, size: int = 1) -> None:
        self.size = size

    def __call__(self, x: Tensor, t: Tensor, y: Tensor) -> TeacherOutput:
        torch.empty(self.size, dtype=torch.uint8, device=x.device)
        return TeacherOutput(0.1 * x)


def test_devices_are_found() -> None:
    assert find_device("cuda").type == "cuda"
    with pytest.raises(ValueError, match="device must be one that this machine has, got 'cuda:99'"):
        find_device("cuda:99")


def test_labels_and_seeds_may_be_anywhere() -> None:
    there = sampler("cuda")
    expected = there.sample(LABELS, SEEDS).samples
    assert expected.is_cuda
    for labels in (torch.tensor(LABELS), torch.tensor(LABELS, device="cuda")):
        for seeds in (torch.tensor(SEEDS), torch.tensor(SEEDS, device="cuda")):
            assert torch.equal(there.sample(labels, seeds).samples, expected)


def test_trajectories_are_kept_where_they_are_asked_for() -> None:
    there = sampler("cuda").sample(LABELS, SEEDS, trajectory=True).trajectory
    host = sampler("cuda").sample(LABELS, SEEDS, trajectory="cpu").trajectory
    assert there is not None
    assert host is not None
    for on_device, on_host in zip(there, host, strict=True):
        assert on_device.is_cuda
        assert not on_host.is_cuda
        assert torch.equal(on_device.cpu(), on_host)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_networks_in_lower_precision(dtype: torch.dtype) -> None:
    result = sampler("cuda", dtype).sample(LABELS, SEEDS)
    assert result.samples.dtype is torch.float32
    assert result.samples.isfinite().all()
    assert result.report.accepted > 0


def test_a_drafter_on_the_cpu() -> None:
    mixed = sampler("cuda")
    assert isinstance(mixed.drafter, FeatureDrafter)
    mixed.drafter.network.cpu()
    with pytest.raises(ValueError, match="drafter must be on .* cuda:0, got cpu"):
        mixed.sample(LABELS)


@SECOND
def test_a_gpu_that_is_not_the_current_one() -> None:
    torch.cuda.set_device(0)
    far, near = sampler("cuda:1").sample(LABELS, SEEDS), sampler("cuda:0").sample(LABELS, SEEDS)
    assert far.samples.device == torch.device("cuda", 1)
    torch.testing.assert_close(far.samples.cpu(), near.samples.cpu(), rtol=1e-4, atol=1e-4)


def test_windows_wider_than_the_kernels_verify() -> None:
    schedule = Schedule.ddpm(ops.WIDEST_ON_CUDA + 10)
    wide = SpeculativeSampler(Teacher(), "frozen", schedule, ops.WIDEST_ON_CUDA + 1, sweeps=1)
    with pytest.raises(ValueError, match="window must be of at most 256 rows on CUDA, got 257"):
        wide.sample([0])
    widest = SpeculativeSampler(Teacher(), "frozen", schedule, ops.WIDEST_ON_CUDA, sweeps=1)
    assert widest.sample([0]).samples.isfinite().all()
    auto = SpeculativeSampler(Teacher(), "frozen", schedule, AutoWindow(1000), sweeps=1)
    assert auto.sample([0]).samples.isfinite().all()


def test_memory_that_is_full() -> None:
    full = SequentialSampler(Teacher(1 << 50), SCHEDULE)
    with pytest.raises(torch.cuda.OutOfMemoryError, match="batch of 2 with window 1: ") as caught:
        full.sample([0, 1])
    assert "CUDA out of memory" in str(caught.value)
    assert isinstance(caught.value.__cause__, torch.OutOfMemoryError)
    assert SequentialSampler(Teacher(), SCHEDULE).sample([0]).samples.isfinite().all()  # goes on


def test_peak_memory_is_the_gpus() -> None:
    size = 1 << 28
    draws = Draws(ROWS[0], SequentialSampler(Teacher(size), SCHEDULE), 3, 2, 0)
    draws()
    draws()
    assert draws.peak is not None
    assert size <= draws.peak < 2 * size
    assert not any(image.is_cuda for image in draws.samples)


def test_phases_are_of_work_and_not_of_launches() -> None:
    class Busy(Teacher):
        """Returns at once; the GPU has ten milliseconds of work."""

        def __call__(self, x: Tensor, t: Tensor, y: Tensor) -> TeacherOutput:
            torch.cuda._sleep(20_000_000)  # clock cycles
            return TeacherOutput(0.1 * x)

    found = profiled(SpeculativeSampler(Busy(), "frozen", SCHEDULE, 4, sweeps=1), [[0], [1]])
    assert next(iter(found.phases)) == "teacher"
    assert found.phases["teacher"] > 0.005
    assert found.phases["draft"] < found.phases["teacher"] / 2
    assert found.operators
    assert all(operator.seconds > 0 for operator in found.operators)
