"""Deterministic schedulers with a little noise: the law that is near each of them."""

from typing import Any

import numpy as np
import pytest
import torch

from free import Schedule, SequentialSampler
from free.rounds.noise import Purpose, normal
from tests.schedule.schedulers import error, network_input, own_step, random_states, real_step
from tests.schedule.test_schedulers import _network

diffusers = pytest.importorskip("diffusers")
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")

SD = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
PLAIN, V = {"clip_sample": False}, {"prediction_type": "v_prediction"}
LEADING = {"timestep_spacing": "leading", "steps_offset": 1}
TRAILING = {"timestep_spacing": "trailing", "rescale_betas_zero_snr": True}
KARRAS, MIN = {"use_karras_sigmas": True}, {"final_sigmas_type": "sigma_min"}
HEUN, FLOWS = (
    {"solver_type": "heun"},
    {"use_flow_sigmas": True, "prediction_type": "flow_prediction"},
)
DYNAMIC = {"use_dynamic_shifting": True}
CASES: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
    ("DDIMScheduler", PLAIN, {}),
    ("DDIMScheduler", PLAIN | SD | V | LEADING | {"set_alpha_to_one": False}, {}),
    ("DDIMScheduler", PLAIN | V | TRAILING, {}),
    ("DDIMScheduler", {}, {"use_clipped_model_output": True}),
    ("EulerDiscreteScheduler", SD | LEADING, {}),
    ("EulerDiscreteScheduler", SD | V | TRAILING, {}),
    ("EulerDiscreteScheduler", SD | KARRAS | MIN, {}),
    ("FlowMatchEulerDiscreteScheduler", {"shift": 3.0}, {}),
    ("FlowMatchEulerDiscreteScheduler", DYNAMIC, {"mu": 0.9}),
    ("FlowMatchEulerDiscreteScheduler", KARRAS | {"shift_terminal": 0.1}, {}),
    ("DPMSolverMultistepScheduler", SD, {}),
    ("DPMSolverMultistepScheduler", SD | V | KARRAS | HEUN, {}),
    ("DPMSolverMultistepScheduler", SD | LEADING | {"solver_order": 1}, {}),
    ("DPMSolverMultistepScheduler", FLOWS | {"flow_shift": 3.0}, {}),
    ("DPMSolverMultistepScheduler", MIN | {"lower_order_final": False, "thresholding": True}, {}),
]  # fmt: skip
STEPS = 20


def _both(
    name: str, config: dict[str, Any], arguments: dict[str, Any], stochasticity: Any
) -> tuple[Schedule, Any, dict[str, Any]]:
    """Our schedule, the scheduler with its grid, and what its step takes."""
    scheduler = getattr(diffusers, name)(**config)
    schedule = Schedule.from_scheduler(scheduler, STEPS, stochasticity=stochasticity, **arguments)
    of_step = {key: arguments[key] for key in arguments if key.startswith("use_clipped")}
    rest = {key: arguments[key] for key in arguments if key not in of_step}
    scheduler.set_timesteps(STEPS, **rest)
    return schedule, scheduler, of_step


def _name(case: Any) -> str:
    return case.removesuffix("Scheduler") if isinstance(case, str) else ""


@pytest.mark.parametrize(("name", "config", "arguments"), CASES, ids=_name)
def test_without_noise_every_step_is_the_schedulers(
    name: str, config: dict, arguments: dict
) -> None:
    schedule, scheduler, of_step = _both(name, config, arguments, 0.0)
    assert (schedule.sigma == 0).all()
    for k in (0, 1, STEPS // 2, STEPS - 2, STEPS - 1):
        history = 2 if schedule.c is not None and k > 0 else 1
        rows = [random_states(schedule, at) for at in range(k + 1 - history, k + 1)]
        expected, expected_input = real_step(scheduler, k, rows, of_step)
        found, found_input = own_step(schedule, k, rows)
        assert error(found, expected) < 1e-5, k
        assert error(found_input, expected_input) < 1e-6, k


SHAPE, SEEDS = (2, 4, 4), [5, 9]


@pytest.mark.parametrize(("name", "config", "arguments"), CASES, ids=_name)
def test_a_run_of_hardly_any_noise_is_that_of_the_schedulers_own_loop(
    name: str, config: dict, arguments: dict
) -> None:
    schedule, scheduler, of_step = _both(name, config, arguments, 1e-6)
    assert (schedule.sigma[:-1] > 0).all()
    states = []
    sampler = SequentialSampler(_network, schedule)
    sampler.sample([0, 0], SEEDS, SHAPE, observer=lambda _, x: states.append(x))
    x = normal(SEEDS, 0, 0, Purpose.INITIAL, SHAPE) * getattr(scheduler, "init_noise_sigma", 1.0)
    for t, own in zip(scheduler.timesteps, states, strict=True):
        y = _network(network_input(scheduler, x, t), t.expand(2), None).eps
        x = scheduler.step(y, t, x, return_dict=False, **of_step)[0]
        assert error(own, x) < 1e-4


@pytest.mark.parametrize(("name", "config", "arguments"), CASES, ids=_name)
def test_the_noise_about_an_image_stays_what_it_is(
    name: str, config: dict, arguments: dict
) -> None:
    """What is kept and what is fresh make the noise of the next state, however much is renewed."""
    plain, *_ = _both(name, config, arguments, 0.0)
    for amount in (1e-3, 0.3, 1.0, 1e200, np.linspace(0.0, 0.5, STEPS)):
        noisy, *_ = _both(name, config, arguments, amount)
        left, kept = plain.a * plain.noise, noisy.a * noisy.noise
        np.testing.assert_allclose(kept**2 + noisy.sigma**2, left**2, rtol=1e-9, atol=1e-12)
        np.testing.assert_array_equal(noisy.timesteps, plain.timesteps)


@pytest.mark.parametrize(("name", "config", "arguments"), CASES[:10], ids=_name)
def test_an_error_of_x0_is_as_many_sigma_at_every_step(
    name: str, config: dict, arguments: dict
) -> None:
    """The share of x0 in the mean is ``b``, but of a second order; a hundredth at least."""
    plain, *_ = _both(name, config, arguments, 0.0)
    noisy, *_ = _both(name, config, arguments, 1e-5)
    left, after = plain.a * plain.noise, plain.b + plain.a * plain.signal
    expected = 4e-5 * np.hypot(plain.b, 0.01 * np.hypot(after, left))
    np.testing.assert_allclose(noisy.sigma, np.where(left > 0, expected, 0.0), rtol=1e-4)


def test_one_amount_a_step() -> None:
    """Of every law that takes one."""
    amount = np.linspace(0.1, 0.9, 10)
    ways: list[Any] = [
        lambda e: Schedule.ddpm(10, stochasticity=e),
        lambda e: Schedule.from_betas(np.linspace(1e-4, 0.02, 1000), range(900, -1, -100),
                                      stochasticity=e),
        lambda e: Schedule.sde("vp", 10, e),
        lambda e: Schedule.sde("linear", 10, e),
        *(lambda e, kind=kind: Schedule.flow(kind, 10, stochasticity=e)
          for kind in ("flow-sde", "cps", "dance")),
        lambda e: Schedule.from_scheduler(diffusers.DDIMScheduler(**PLAIN), 10, eta=e),
        lambda e: Schedule.from_scheduler(diffusers.PNDMScheduler(), 10, "ddim", e),
        lambda e: Schedule.from_scheduler(diffusers.EulerDiscreteScheduler(), 10, stochasticity=e),
    ]  # fmt: skip
    for way in ways:
        several = way(amount)
        np.testing.assert_array_equal(way(torch.tensor(amount)).sigma, several.sigma)
        for k in (0, 4, 9):
            one = way(amount[k])
            for column in ("a", "b", "sigma"):
                assert getattr(several, column)[k] == pytest.approx(getattr(one, column)[k])
        with pytest.raises(ValueError, match=r"must be a number or one a transition \(10\), got"):
            way(amount[:3])


def test_none_of_it_is_sampled_but_not_speculated() -> None:
    schedule = Schedule.from_scheduler(diffusers.DDIMScheduler(**PLAIN), 5, stochasticity=0)
    drawn = SequentialSampler(_network, schedule).sample([0], [1], SHAPE).samples
    assert torch.isfinite(drawn).all()
    with pytest.raises(ValueError, match="must be left out with a DDIMScheduler whose noise is"):
        Schedule.from_scheduler(diffusers.DDIMScheduler(**PLAIN), 5, eta=0.5, stochasticity=0.1)
