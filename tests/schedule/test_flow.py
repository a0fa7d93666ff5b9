"""Samplers of flow matching against their own formulas, in velocities and float64."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from free import Schedule, SequentialSampler, SpeculativeSampler, TeacherOutput
from free.schedule.table import Table
from tests.networks import FlowTeacher
from tests.schedule.schedulers import error, own_step, random_states

Step = Callable[..., Any]


def _flow_sde(x: Any, v: Any, z: Any, t: float, after: float, second: float, eta: float) -> Any:
    """Flow-GRPO: ``g = eta sqrt(t / (1 - t))``, with the second level for t = 1."""
    dt = after - t
    g = eta * np.sqrt(t / (1 - (second if t == 1 else t)))
    mean = x * (1 + g**2 / (2 * t) * dt) + v * (1 + g**2 * (1 - t) / (2 * t)) * dt
    return mean + g * np.sqrt(-dt) * z


def _cps(x: Any, v: Any, z: Any, t: float, after: float, second: float, eta: float) -> Any:
    std = after * np.sin(eta * np.pi / 2)
    x0, noise = x - t * v, x + (1 - t) * v
    return x0 * (1 - after) + noise * np.sqrt(after**2 - std**2) + std * z


def _dance(x: Any, v: Any, z: Any, t: float, after: float, second: float, eta: float) -> Any:
    dt, x0 = after - t, x - t * v
    if after == 0:
        return x0  # the image that its trainer decodes
    score = -(x - x0 * (1 - t)) / t**2
    return x + dt * v - 0.5 * eta**2 * score * dt + eta * np.sqrt(-dt) * z


def _renoise(x: Any, v: Any, z: Any, t: float, after: float, second: float, eta: float) -> Any:
    return (1 - after) * (x - t * v) + after * z


@pytest.mark.parametrize(
    ("kind", "step", "etas"),
    [
        ("flow-sde", _flow_sde, {None: 0.7, 0.3: 0.3, 1.2: 1.2}),
        ("cps", _cps, {None: 0.7, 0.3: 0.3, 1.0: 1.0}),
        ("dance", _dance, {None: 0.3, 0.6: 0.6}),
        ("renoise", _renoise, {None: 0.0}),
    ],
)
@pytest.mark.parametrize("shift", [1.0, 3.0])
def test_every_step_is_the_formulas(kind: str, step: Step, etas: dict, shift: float) -> None:
    levels = np.linspace(1.0, 0.0, 11)
    levels = shift * levels / (1 + (shift - 1) * levels)
    for given, eta in etas.items():
        schedule = Schedule.flow(kind, 10, shift=shift, stochasticity=given)
        np.testing.assert_allclose(schedule.timesteps, 1000 * levels[:-1], rtol=1e-12)
        np.testing.assert_allclose(schedule.signal, 1 - levels[:-1], atol=1e-12)
        np.testing.assert_allclose(schedule.noise, levels[:-1], rtol=1e-12)
        for k in (0, 1, 5, 9):
            row = random_states(schedule, k)
            x, v, z = (part.double() for part in row)
            expected = step(x, v, z, levels[k], levels[k + 1], levels[1], eta)
            found, given_to_network = own_step(schedule, k, [row])
            assert error(found.double(), expected) < 1e-5, (k, eta)
            assert given_to_network is row[0]


def test_levels_of_ones_own() -> None:
    sigmas = [1.0, 0.7, 0.2]
    schedule = Schedule.flow("cps", sigmas=sigmas, shift=2.0, train_steps=1.0)
    shifted = [2 * s / (1 + s) for s in sigmas]
    np.testing.assert_allclose(schedule.timesteps, shifted)
    assert schedule.sigma[-1] == 0
    ours = Schedule.flow("cps", 3, shift=2.0)
    np.testing.assert_allclose(ours.noise, [1.0, 0.8, 0.5])


@pytest.mark.parametrize("steps", [2, 17, 250])
def test_repa_is_the_published_sampler(steps: int) -> None:
    """Euler-Maruyama as its code has it: a score from the velocity, then the drift."""
    schedule = Schedule.repa(steps)
    times = np.append(np.linspace(1.0, 0.04, steps), 0.0)
    np.testing.assert_allclose(schedule.timesteps, times[:-1], rtol=1e-12)
    for k in {0, steps // 2, steps - 1}:
        row = random_states(schedule, k)
        x, v, z = (part.double() for part in row)
        t, dt = times[k], times[k + 1] - times[k]
        ratio = (1 - t) / -1.0  # alpha / d_alpha
        score = (ratio * v - x) / (t**2 - ratio * t)
        expected = x + dt * (v - 0.5 * (2 * t) * score)
        if k < steps - 1:
            expected = expected + np.sqrt(2 * t) * np.sqrt(-dt) * z
        assert error(own_step(schedule, k, [row])[0].double(), expected) < 1e-5


def test_repa_guides_an_interval() -> None:
    assert Schedule.repa(9).guided is None
    schedule = Schedule.repa(250, guided=(0.0, 0.7))
    np.testing.assert_array_equal(schedule.guided, np.linspace(1, 0.04, 250) <= 0.7)
    assert Table.of(schedule, "cpu").interval
    assert Table.of(schedule, "cpu").time(torch.tensor([3])).dtype is torch.float32


@pytest.mark.parametrize("kind", ["renoise", "flow-sde", "cps", "dance", "repa"])
def test_the_images_are_the_datas(kind: str) -> None:
    """With the exact velocity: each near a mode, as far from it as the data are."""
    teacher = FlowTeacher(4)

    def told(x: torch.Tensor, t: torch.Tensor, y: torch.Tensor) -> TeacherOutput:
        return teacher(x, 1000 * t, y)

    made = Schedule.repa(200) if kind == "repa" else Schedule.flow(kind, 200, train_steps=1.0)
    labels = [0, 1] * 300
    samples = SequentialSampler(told, made).sample(labels, 3, shape=(4,)).samples
    far = torch.cdist(samples, teacher.modes).min(1).values
    # Renoising makes the modes narrower than they are; with time reversed none is found.
    assert 0.4 < float(far.square().mean() / (4 * teacher.spread**2)) < 1.2
    speculative = SpeculativeSampler(told, "frozen", made, 4)
    assert speculative.sample([0, 1], 3, shape=(4,)).samples.isfinite().all()


def test_times_that_are_whole_but_for_rounding_are_whole() -> None:
    """Whatever the number of steps: 1000 times 0.3 is not 300 in float64."""
    schedule = Schedule.flow("cps", 10)
    assert schedule.timesteps.dtype == np.int64
    np.testing.assert_array_equal(schedule.timesteps, range(1000, 0, -100))
    assert Schedule.flow("cps", 10, train_steps=1.0).timesteps.dtype == np.float64


def test_bad_input() -> None:
    for make, message in (
        (lambda: Schedule.flow("ode", 5), "kind must be one of 'renoise', 'flow-sde', .* got 'od"),
        (lambda: Schedule.flow("cps"), "steps or sigmas must be given, one of them"),
        (lambda: Schedule.flow("cps", 3, sigmas=[1.0]), "steps or sigmas must be given, one of"),
        (lambda: Schedule.flow("cps", 0), "steps must be an integer >= 1, got 0"),
        (lambda: Schedule.flow("cps", 3, shift=-1.0), "shift must be a finite number > 0, got -1"),
        (
            lambda: Schedule.flow("cps", 3, stochasticity=-0.1),
            "stochasticity must be finite and >= 0, at most 1, with 'cps'",
        ),
        (lambda: Schedule.flow("cps", 3, stochasticity=1.5), "at most 1, with 'cps', got 1.5"),
        (
            lambda: Schedule.flow("dance", 3, stochasticity=np.nan),
            "stochasticity must be finite and >= 0, at most inf",
        ),
        (
            lambda: Schedule.flow("renoise", 3, stochasticity=0.5),
            "stochasticity must be None with 'renoise'",
        ),
        (
            lambda: Schedule.flow("cps", sigmas=[0.5, 0.7]),
            "sigmas must not rise .* 0.5 and then 0.7",
        ),
        (lambda: Schedule.flow("cps", sigmas=[1.5, 0.7]), r"sigmas must be in 0\.\.1, got 1.5"),
        (lambda: Schedule.flow("cps", sigmas=[[0.5]]), "sigmas must be a non-empty vector"),
        (lambda: Schedule.flow("cps", sigmas=[np.inf]), "sigmas must be finite"),
        (lambda: Schedule.flow("cps", 3, train_steps=0), "train_steps must be a finite number > 0"),
        (lambda: Schedule.repa(1), "steps must be an integer >= 2, got 1"),
        (lambda: Schedule.repa(5, last=1.0), r"last must be in \(0, 1\), got 1.0"),
        (lambda: Schedule.flow("flow-sde", sigmas=[1, 1, 0.5]), "sigmas must be 1 in the first "),
        (lambda: Schedule.repa(5, guided=(0.7, 0.1)), "guided must be two numbers low <= high"),
        (lambda: Schedule.repa(5, guided=0.7), "guided must be two numbers low <= high, got 0.7"),
        (lambda: Schedule.repa(5, guided=(0, 0.5, 1)), "guided must be two numbers low <= high"),
    ):
        with pytest.raises(ValueError, match=message):
            make()
