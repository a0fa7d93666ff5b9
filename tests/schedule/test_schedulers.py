"""Every step of a schedule made of a scheduler is the step of the scheduler itself."""

from typing import Any

import numpy as np
import pytest
import torch

from free import Schedule, SequentialSampler, TeacherOutput
from free.rounds.noise import Purpose, normal
from tests.schedule.schedulers import (
    error,
    network_input,
    noisy_step,
    own_step,
    random_states,
    real_step,
)

diffusers = pytest.importorskip("diffusers")
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")

#: Class, configuration, steps, and what set_timesteps and step take.
Case = tuple[str, dict[str, Any], int, dict[str, Any], dict[str, Any]]


def _cases(name: str, *rows: Any) -> list[Case]:
    """(configuration, steps, arguments of set_timesteps, of step), shorter where there is none."""
    return [(name, *row, *[{}] * (4 - len(row)))[:5] for row in rows]


V, SAMPLE = {"prediction_type": "v_prediction"}, {"prediction_type": "sample"}
LINSPACE = {"timestep_spacing": "linspace"}
TRAILING, OFFSET = {"timestep_spacing": "trailing"}, {"steps_offset": 1}
PLAIN, SNR = {"clip_sample": False}, {"rescale_betas_zero_snr": True}
THRESHOLD = {"thresholding": True, "sample_max_value": 1.5, "dynamic_thresholding_ratio": 0.9}
SD = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}

DDPM = _cases(
    "DDPMScheduler",
    ({}, 50),
    (PLAIN, 50),
    ({"clip_sample_range": 2.0}, 20),
    (V, 50),
    (V | PLAIN, 20),
    (SAMPLE, 50),
    (SAMPLE | PLAIN | TRAILING, 25),
    (THRESHOLD, 30),
    (LINSPACE | {"variance_type": "fixed_small_log"}, 20),
    (LINSPACE | {"variance_type": "fixed_large"}, 20),
    (TRAILING | {"variance_type": "fixed_large"}, 30),
    (OFFSET | {"variance_type": "fixed_large", "beta_schedule": "sigmoid"}, 30),
    (OFFSET | {"beta_schedule": "squaredcos_cap_v2"}, 30),
    (TRAILING | SNR | V | SD, 25),
    (SNR | SAMPLE | TRAILING | PLAIN, 25),
    ({"beta_schedule": "laplace"}, 25),
    (PLAIN | {"num_train_timesteps": 4, "trained_betas": [0.1, 0.2, 0.3, 0.4]}, 4),
    ({}, 5, {"timesteps": [990, 700, 300, 40, 3]}),
    ({}, 1),
)
ETA, CLIPPED = {"eta": 1.0}, {"eta": 0.6, "use_clipped_model_output": True}
DDIM = _cases(
    "DDIMScheduler",
    (PLAIN, 50, {}, ETA),
    (PLAIN | SD | OFFSET | {"set_alpha_to_one": False}, 50, {}, ETA),
    (PLAIN | TRAILING | V | SNR, 30, {}, {"eta": 0.5}),
    (PLAIN | LINSPACE | SAMPLE, 30, {}, {"eta": 0.2}),
    ({}, 50, {}, CLIPPED),
    (THRESHOLD | V, 20, {}, CLIPPED),
    (SAMPLE | {"clip_sample_range": 0.7}, 20, {}, CLIPPED),
)
EULER = _cases(
    "EulerAncestralDiscreteScheduler",
    ({}, 30),
    (SD, 25),
    (SD | OFFSET | {"timestep_spacing": "leading"}, 30),
    (TRAILING | V | SNR | SD, 20),
    (V, 7),
    ({"beta_schedule": "squaredcos_cap_v2"}, 3),
)
NOISY = {"stochastic_sampling": True}
DYNAMIC = {"use_dynamic_shifting": True, "time_shift_type": "exponential"}
SIGMAS = {"sigmas": [1.0, 0.8, 0.55, 0.3]}
_FLOW: Any = (
    ({}, 28),
    ({"shift": 3.0}, 8),
    (DYNAMIC, 8, {"mu": 0.8}),
    (DYNAMIC | {"time_shift_type": "linear"}, 8, {"mu": 0.8}),
    ({"shift": 2.0}, 4, SIGMAS),
    ({"use_karras_sigmas": True}, 10),
    ({"use_exponential_sigmas": True}, 10),
    ({"use_beta_sigmas": True}, 10),
    ({"shift_terminal": 0.1}, 6),
)
FLOW = _cases("FlowMatchEulerDiscreteScheduler", *((NOISY | row[0], *row[1:]) for row in _FLOW))
FLOW += _cases("FlowMatchLCMScheduler", *_FLOW)

LTX = _cases(
    "LTXEulerAncestralRFScheduler",
    ({}, 30),
    ({"eta": 0.4, "s_noise": 0.9}, 8),
    ({}, 4, {"sigmas": [1.0, 0.8, 0.4, 0.2, 0.0]}),
    ({"eta": 0.7}, 3, {"sigmas": [0.9, 0.6, 0.3, 0.1]}),
)
LCM = _cases(
    "LCMScheduler",
    ({}, 4),
    ({"clip_sample": True, "original_inference_steps": 100}, 8),
    (V | THRESHOLD, 4, {"original_inference_steps": 20}),
    (SAMPLE | {"timestep_scaling": 0.01}, 3),
    ({}, 4, {"timesteps": [999, 500, 100, 9]}),
    ({"timestep_scaling": 0.01}, 2, {"strength": 0.5}),
)
MULTI, TWO = {"algorithm_type": "sde-dpmsolver++"}, {"solver_order": 2}
ONE, KARRAS = {"solver_order": 1}, {"use_karras_sigmas": True}
HEUN, MIN = {"solver_type": "heun"}, {"final_sigmas_type": "sigma_min"}
FLOWS = {"use_flow_sigmas": True, "prediction_type": "flow_prediction"}
OLD = {"algorithm_type": "sde-dpmsolver"} | ONE | MIN
DPM = _cases(
    "DPMSolverMultistepScheduler",
    *(
        (MULTI | row[0], *row[1:])
        for row in (
            (ONE, 10),
            (ONE | SD | KARRAS | V, 25),
            (TWO, 20),
            (TWO | HEUN, 20),
            (TWO | SD | KARRAS, 25),
            (TWO | KARRAS | {"beta_schedule": "squaredcos_cap_v2"}, 12),
            (TWO | SD | HEUN | {"use_exponential_sigmas": True}, 14),
            (TWO | SD | {"use_beta_sigmas": True}, 16),
            (TWO | SD | {"use_lu_lambdas": True}, 10),
            (TWO | FLOWS | {"flow_shift": 3.0}, 10),
            (TWO | FLOWS | HEUN, 20),
            (TWO | FLOWS | DYNAMIC, 10, {"mu": 0.8}),
            (TWO | MIN | {"lower_order_final": False}, 10),
            (TWO | MIN | {"euler_at_final": True}, 20),
            (TWO | MIN, 10),
            (TWO | MIN, 20),
            (TWO | MIN | KARRAS | SD, 40),
            (TWO | THRESHOLD | SAMPLE, 10),
            (TWO | SD | OFFSET | {"timestep_spacing": "leading"}, 20),
            (TWO | TRAILING | SNR | V | SD, 20),
            (TWO, 3, {"timesteps": [900, 500, 20]}),
            (TWO, 1),
            (TWO | {"beta_schedule": "squaredcos_cap_v2", "lambda_min_clipped": -5.1}, 10),
        )
    ),
    (OLD, 10),
    (OLD | V | SD | KARRAS, 10),
    (OLD | SAMPLE | THRESHOLD, 10),
)

CASES = [*DDPM, *DDIM, *EULER, *FLOW, *LTX, *LCM, *DPM]


def _id(case: Case) -> str:
    name, *rest = case
    return name.removesuffix("Scheduler") + " " + " ".join(map(str, rest)).replace("{} ", "")


def _both(case: Case) -> tuple[Schedule, Any]:
    """Our schedule, and the scheduler with its grid."""
    name, config, steps, arguments, options = case
    scheduler = getattr(diffusers, name)(**config)
    state = dict(vars(scheduler))
    schedule = Schedule.from_scheduler(scheduler, steps, **arguments, **options)
    assert all(vars(scheduler)[key] is state[key] for key in state)  # it is left as it is
    given = None if "timesteps" in arguments else steps
    scheduler.set_timesteps(given, **arguments)
    return schedule, scheduler


@pytest.mark.parametrize("case", CASES, ids=_id)
def test_every_step_is_the_schedulers(case: Case) -> None:
    schedule, scheduler = _both(case)
    N = len(schedule)
    np.testing.assert_array_equal(schedule.timesteps, scheduler.timesteps.double()[:N])
    for k in {0, 1 % N, N // 2, N - 1}:
        history = 2 if schedule.c is not None and k > 0 else 1
        rows = [random_states(schedule, at) for at in range(k + 1 - history, k + 1)]
        expected, expected_input = real_step(scheduler, k, rows, case[-1])
        found, found_input = own_step(schedule, k, rows)
        assert error(found, expected) < 1e-5, k
        assert error(found_input, expected_input) < 1e-6, k


SHAPE, SEEDS = (2, 4, 4), [5, 9]


def _network(x: torch.Tensor, t: torch.Tensor, y: torch.Tensor) -> TeacherOutput:
    """Nothing that was trained: it looks at states, neighbours and times between whole ones."""
    time = (t.float() / 1000).reshape(-1, 1, 1, 1)
    return TeacherOutput(torch.tanh(0.7 * x + 0.4 * x.roll(1, 2) - time) + 0.1 * x * time)


@pytest.mark.parametrize(
    "case", [DDPM[0], DDIM[4], EULER[1], FLOW[1], LTX[1], LCM[1], DPM[2], DPM[4], DPM[9]], ids=_id
)
def test_a_run_is_that_of_the_schedulers_own_loop(case: Case) -> None:
    """With the same noise: from the first state to the image."""
    schedule, scheduler = _both(case)
    drawn = SequentialSampler(_network, schedule).sample([0, 0], SEEDS, SHAPE).samples
    x = normal(SEEDS, 0, 0, Purpose.INITIAL, SHAPE) * getattr(scheduler, "init_noise_sigma", 1.0)
    for k, t in enumerate(scheduler.timesteps[: len(schedule)]):
        z = normal(SEEDS, k, 0, Purpose.TRANSITION, SHAPE)
        y = _network(network_input(scheduler, x, t), t.expand(2), None).eps
        x = noisy_step(scheduler, y, t, x, z, case[-1])
    assert error(drawn, x) < 1e-4
