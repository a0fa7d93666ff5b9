"""What a speculative sampler may be asked to do."""

import dataclasses
import warnings

import numpy as np
import pytest
import torch

from free import (
    AutoWindow,
    DiT,
    DiTConfig,
    DrafterNet,
    FrozenDrafter,
    Schedule,
    SequentialSampler,
    SpeculativeSampler,
)
from free.ops import WIDEST_ON_CUDA
from free.sampling.settings import largest_window
from free.window import FixedWindow
from tests.networks import CallableDrafter, MixtureTeacher

TEACHER = MixtureTeacher(4)
POOR = CallableDrafter(MixtureTeacher(4, shift=0.15))
SCHEDULE = Schedule.ddpm(30)


def test_what_is_no_teacher_schedule_or_drafter_is_refused() -> None:
    with pytest.raises(TypeError, match="schedule must be a Schedule, got int"):
        SpeculativeSampler(TEACHER, POOR, 50)
    with pytest.raises(TypeError, match="teacher must be callable, got NoneType"):
        SpeculativeSampler(None, POOR, SCHEDULE)
    with pytest.raises(TypeError, match="drafter must have begin, predict and carry_from"):
        SpeculativeSampler(TEACHER, FrozenDrafter, SCHEDULE)
    with pytest.raises(TypeError, match="drafter must have .* got 'frosen'"):
        SpeculativeSampler(TEACHER, "frosen", SCHEDULE, window=1)
    for network, came in (
        (torch.nn.Linear(2, 2), "Linear$"),
        (DrafterNet(DiTConfig(8, 4, 1, 16, 2, 2)), "DrafterNet, a network: .*FeatureDrafter"),
    ):
        with pytest.raises(TypeError, match=f"drafter must have .* got {came}"):
            SpeculativeSampler(TEACHER, network, SCHEDULE)

    class Half(CallableDrafter):
        def change(self) -> None: ...

    with pytest.raises(TypeError, match="carry_of_change where it has change, got change alone"):
        SpeculativeSampler(TEACHER, Half(TEACHER), SCHEDULE, window=4)


def _without_rows() -> FixedWindow:
    rule = FixedWindow(1)
    rule.largest = 0
    return rule


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sweeps": 2.0}, "sweeps must be None, 'auto' or an integer >= 0, got 2.0"),
        ({"sweeps": True}, "sweeps must be None, 'auto' or an integer >= 0, got True"),
        ({"sweeps": -1}, "sweeps must be None, 'auto' or an integer >= 0, got -1"),
        ({"sweeps": "auto"}, "sweeps must be None or an integer with window 4, got 'auto'"),
        ({"window": object()}, "'auto' or a WindowRule, got <object"),
        ({"window": _without_rows()}, "window must have an integer >= 1 as largest, got 0 in"),
        ({"window": 0}, "window must be an integer >= 1, 'auto' or a WindowRule, got 0"),
        ({"recycle": "all"}, "recycle must be True, False or one of 'response', 'reuse', 'drafter"),
        ({"cfg_scale": 2.0, "cfg_channels": 0}, "cfg_channels must be an integer >= 1"),
        ({"cfg_scale": -1.0}, "cfg_scale must be finite and >= 0, got -1.0"),
        ({"verifier": "hope"}, "verifier: expected one of"),
        (
            {"verifier": "block", "recycle": "reuse"},
            "recycle must be False with verifier 'block', whose decisions look at later drafts, so "
            "that their noise must not be used again; got 'reuse'",
        ),
    ],
)
def test_bad_options_are_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SpeculativeSampler(TEACHER, POOR, SCHEDULE, **{"window": 4, **options})


def test_times_of_another_kind_than_the_network_is_told_are_refused() -> None:
    """Also times that a network would take: between whole timesteps of a training, or below 1."""
    config = DiTConfig(8, 4, 4, 16, 1, 2, num_classes=3)
    of_noise = DiT(config)
    of_velocity = DiT(dataclasses.replace(config, learn_sigma=False, prediction="velocity"))
    unit, training = Schedule.repa(4), Schedule.flow("cps", 3)
    assert training.timesteps.dtype == np.float64
    for make in (lambda *two: SpeculativeSampler(two[0], "frozen", two[1], 2), SequentialSampler):
        make(of_noise, Schedule.ddpm(4))
        make(of_velocity, unit)
        with pytest.raises(ValueError, match=r"^schedule must have times in 0\.\.1 .*, got 1000$"):
            make(of_velocity, training)
        with pytest.raises(ValueError, match="must have the timesteps of a training .* 1 on$"):
            make(of_noise, unit)


def test_a_deterministic_sampler_cannot_be_speculated() -> None:
    ddim = Schedule.ddpm(10, stochasticity=0.0)
    with pytest.raises(ValueError, match="sigma > 0 before its last transition"):
        SpeculativeSampler(TEACHER, POOR, ddim)
    assert SequentialSampler(TEACHER, ddim).sample([0]).samples.isfinite().all()
    assert SpeculativeSampler(TEACHER, POOR, ddim, window=1).sample([0]).samples.isfinite().all()


def test_windows_that_the_cuda_kernels_do_not_verify_are_refused() -> None:
    cpu, cuda = torch.device("cpu"), torch.device("cuda", 0)
    wide = FixedWindow(WIDEST_ON_CUDA + 1)
    assert largest_window(wide, 1000, cpu) == 257
    assert largest_window(wide, 250, cuda) == 250  # a run is no longer
    assert largest_window(FixedWindow(WIDEST_ON_CUDA), 1000, cuda) == 256
    assert largest_window(AutoWindow(1000), 1000, cuda) == 256  # it takes what pays, up to that
    with pytest.raises(ValueError, match="window must be of at most 256 rows on CUDA, got 257 for"):
        largest_window(wide, 1000, cuda)


def test_a_noise_that_float32_rounds_is_warned_of() -> None:
    teacher = MixtureTeacher(2)
    for stochasticity in (1e-3, 1e-5):
        schedule = Schedule.ddpm(20, stochasticity=stochasticity)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            SpeculativeSampler(teacher, "frozen", schedule, 4)
            SequentialSampler(teacher, schedule)
        assert len(caught) == (stochasticity == 1e-5)
        for one in caught:
            assert "sigma >= 1e-06 of its states' size" in str(one.message)
            assert "at step 18: the noise is rounded" in str(one.message)
            assert one.filename == __file__
