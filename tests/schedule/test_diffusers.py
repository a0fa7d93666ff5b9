"""Scheduler configurations: step by step the sampler of diffusers, or refused with the way out."""

import numpy as np
import pytest
import torch

from free import Schedule, SequentialSampler, SpeculativeSampler
from free.schedule.diffusers import ddpm_config, schedule_from_config
from tests.networks import CallableDrafter, MixtureTeacher

DDPM = {"clip_sample": False}


def _step_by_step(config: dict, steps: int) -> tuple[list, list, list, list]:
    """Timesteps, ``a``, ``b`` and sigma of diffusers' own steps, in double precision."""
    diffusers = pytest.importorskip("diffusers")
    scheduler = diffusers.DDPMScheduler.from_config(config)
    # Its betas are float32; cumulated in float64 what is left is the arithmetic of `step`.
    scheduler.alphas_cumprod = torch.cumprod(1 - scheduler.betas.double(), 0)
    scheduler.one = scheduler.one.double()
    scheduler.set_timesteps(steps)
    rows = []
    state, zero = torch.ones(1, 1, 1, 1, dtype=torch.float64), torch.zeros(1, 1, 1, 1).double()
    for t in scheduler.timesteps:

        def step(x: torch.Tensor, eps: torch.Tensor, at: torch.Tensor = t) -> float:
            return float(scheduler.step(eps, at, x, torch.Generator().manual_seed(0)).prev_sample)

        noise = float(torch.randn(1, generator=torch.Generator().manual_seed(0), dtype=zero.dtype))
        shift = step(zero, zero)
        rows.append((int(t), step(state, zero) - shift, step(zero, state) - shift, shift / noise))
    return tuple(zip(*rows, strict=True))


@pytest.mark.parametrize(
    ("config", "steps"),
    [
        ({"timestep_spacing": "linspace"}, 50),
        ({"timestep_spacing": "linspace", "beta_schedule": "scaled_linear"}, 20),
        ({"timestep_spacing": "linspace", "beta_schedule": "sigmoid"}, 7),
        ({"timestep_spacing": "linspace", "variance_type": "fixed_large"}, 20),
        ({"timestep_spacing": "linspace", "variance_type": "fixed_small_log"}, 20),
        ({"timestep_spacing": "leading"}, 30),
        ({"timestep_spacing": "leading", "steps_offset": 1}, 30),
        ({"timestep_spacing": "leading", "steps_offset": 1, "variance_type": "fixed_large"}, 30),
        ({"timestep_spacing": "trailing"}, 50),
        ({"timestep_spacing": "trailing", "variance_type": "fixed_large"}, 30),
        ({"timestep_spacing": "trailing", "beta_schedule": "squaredcos_cap_v2"}, 50),
        ({"num_train_timesteps": 4, "trained_betas": [0.1, 0.2, 0.3, 0.4]}, 4),
        ({}, 1),
    ],
)
def test_every_step_is_that_of_diffusers(config: dict, steps: int) -> None:
    t, a, b, sigma = map(np.array, _step_by_step({**DDPM, **config}, steps))
    schedule = schedule_from_config({**DDPM, **config}, steps)
    np.testing.assert_array_equal(schedule.timesteps, t)
    np.testing.assert_allclose(schedule.a, a, rtol=2e-5)
    np.testing.assert_allclose(schedule.b, b, rtol=1e-4, atol=1e-12)
    np.testing.assert_allclose(schedule.sigma, sigma, rtol=1e-4, atol=1e-9)


def test_a_last_step_with_noise_is_sampled_with_it() -> None:
    """fixed_large on a grid that ends above 0: both samplers draw the last noise."""
    config = {**DDPM, "timestep_spacing": "trailing", "variance_type": "fixed_large"}
    schedule = schedule_from_config(config, 10)
    log = schedule_from_config({**config, "variance_type": "fixed_large_log"}, 10)
    np.testing.assert_array_equal(log.sigma, schedule.sigma)
    skipped = np.linspace(1e-4, 2e-2, 1000)[:100]
    assert schedule.sigma[-1] == pytest.approx(np.sqrt(1 - np.prod(1 - skipped)), rel=1e-12)
    teacher = MixtureTeacher(4)
    plain = SequentialSampler(teacher, schedule).sample([0, 1], 3).samples
    sampler = SpeculativeSampler(teacher, CallableDrafter(teacher), schedule, 4, recycle="reuse")
    torch.testing.assert_close(sampler.sample([0, 1], 3).samples, plain, rtol=1e-3, atol=1e-3)
    quiet = Schedule.from_betas(np.linspace(1e-4, 2e-2, 1000), schedule.timesteps, "upper")
    quiet = SequentialSampler(teacher, quiet).sample([0, 1], 3).samples
    assert (quiet - plain).abs().max() > 0.01


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (
            {"_class_name": "DDIMScheduler", "beta_schedule": "linear"},
            "DDPMScheduler, .* got DDIMScheduler: pass sched.*'ddpm'",
        ),
        ({"clip_sample": True}, "clip_sample=True, which cannot be .* set clip_sample=False, or"),
        ({"thresholding": True}, "thresholding=True, which cannot be speculated"),
        ({"variance_type": "learned_range"}, "variance_type='learned_range', which .*one variance"),
        ({"prediction_type": "v_prediction"}, "prediction_type='v_prediction', which cannot"),
        ({"rescale_betas_zero_snr": True}, "rescale_betas_zero_snr=True, which cannot"),
        ({"final_sigma": 1}, "must have keys of DDPMScheduler, got final_sigma, which may change"),
        ({"beta_schedule": "laplace"}, "beta_schedule must be 'linear', .* got 'laplace'"),
        ({"timestep_spacing": "even"}, "timestep_spacing must be 'linspace', .* got 'even'"),
        ({"trained_betas": [0.1]}, r"trained_betas must have .*\(1000\) entries, got shape \(1,\)"),
        ({"beta_start": -0.1}, r"betas must be in \(0, 1\), got -0.1"),
        ({"num_train_timesteps": 2**40}, r"num_train_timesteps must be an integer in 1\.\.1000000"),
        ({"steps_offset": 30}, r"steps_offset must leave .*\(1000\), got 30 with 90 steps"),
    ],
)
def test_what_cannot_be_sampled_is_refused(config: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        schedule_from_config({**DDPM, **config}, 90)


def test_what_else_is_refused() -> None:
    with pytest.raises(ValueError, match="clip_sample=True"):  # where nothing is said of it
        schedule_from_config({"_class_name": "DDPMScheduler"}, 50)
    for steps in (0, 1001, 2.0, True):
        with pytest.raises(ValueError, match=r"\(num_inference_steps\) must be an .* 1..1000"):
            schedule_from_config(DDPM, steps)


def test_no_advice_leads_to_another_refusal() -> None:
    """Where the network is at fault, or there are no betas, 'ddpm' is not advised."""
    flow = {"_class_name": "FlowMatchEulerDiscreteScheduler", "shift": 1.0}
    way_out = r"pass scheduler=lambda steps: free.Schedule.sde\('linear', steps\)"
    with pytest.raises(ValueError, match=f"needs a config with betas .* got FlowMatch.*{way_out}"):
        ddpm_config(flow)
    with pytest.raises(ValueError, match=f"must be a DDPMScheduler.* got FlowMatch.*{way_out}"):
        schedule_from_config(flow, 50)
    for config in (DDPM, {"_class_name": "EulerAncestralDiscreteScheduler", "trained_betas": None}):
        for fault in ({"prediction_type": "v_prediction"}, {"rescale_betas_zero_snr": True}):
            faults = {**config, **fault, "clip_sample": True}
            with pytest.raises(ValueError, match=next(iter(fault))) as refusal:
                schedule_from_config(faults, 50)
            assert "'ddpm'" not in str(refusal.value)


def test_trailing_grids_are_those_of_diffusers_or_refused() -> None:
    diffusers = pytest.importorskip("diffusers")
    config = {"clip_sample": False, "timestep_spacing": "trailing"}
    scheduler = diffusers.DDPMScheduler(clip_sample=False, timestep_spacing="trailing")
    refused = 0
    for steps in range(2, 1001):
        scheduler.set_timesteps(steps)
        expected = scheduler.timesteps.tolist()
        if len(expected) == steps and expected[-1] >= 0:
            assert schedule_from_config(config, steps).timesteps.tolist() == expected
            continue
        refused += 1
        with pytest.raises(ValueError, match="steps .* timestep_spacing='trailing'"):
            schedule_from_config(config, steps)
    assert 0 < refused < 100
