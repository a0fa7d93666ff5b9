"""Fitting a fixed variance to a teacher's own, and training one of the state."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from free import Schedule, TeacherOutput
from free.training.randomness import RowRandom
from free.training.variance import fit_variance, sigma_loss
from tests.networks import MixtureTeacher


class Known(MixtureTeacher):
    """Returns a known variance, in [-1, 1]: ``variance(x, t, y)``, broadcast to x."""

    def __init__(self, variance: Callable[[Tensor, Tensor, Tensor], Tensor]) -> None:
        super().__init__(2)
        self.variance = variance

    def __call__(self, x: Tensor, t: Tensor, y: Tensor) -> TeacherOutput:
        variance = self.variance(x, t[:, None], y[:, None]).expand_as(x).clone()
        return super().__call__(x, t, y)._replace(variance=variance)


def test_a_known_variance_is_found() -> None:
    fit = fit_variance(Known(lambda x, t, y: 1.0 - t / 500.0), [0, 1, 0], steps=30, seed=4)
    np.testing.assert_array_equal(fit.timesteps, Schedule.ddpm(30).timesteps[:-1])
    np.testing.assert_allclose(fit.weights, 1 - fit.timesteps / 1000, atol=1e-4)


def test_guided_fits_take_the_conditional_variance() -> None:
    teacher = Known(lambda x, t, y: torch.where(y == Known.null_label, 1.0, -0.4))
    fit = fit_variance(teacher, [0, 1], steps=10, cfg_scale=1.5)
    np.testing.assert_allclose(fit.weights, 0.3, atol=1e-4)


def test_elements_are_averaged_as_variances() -> None:
    """Half of the elements at the posterior's, half at beta: the mean variance, not the middle."""
    teacher = Known(lambda x, t, y: torch.tensor([-1.0, 1.0]))
    schedule = Schedule.ddpm(30, variance=fit_variance(teacher, [0], steps=30))
    ends = [Schedule.ddpm(30, variance=name).sigma ** 2 for name in ("posterior", "upper")]
    np.testing.assert_allclose(schedule.sigma**2, sum(ends) / 2, rtol=1e-5)


def test_teachers_without_a_learned_variance() -> None:
    with pytest.raises(ValueError, match="teacher must have a learned variance .* got one"):
        fit_variance(MixtureTeacher(2), [0], steps=5)

    def nameless(x: Tensor, t: Tensor, y: Tensor) -> TeacherOutput:
        return TeacherOutput(x, variance=x)

    with pytest.raises(ValueError, match="teacher must have a null_label to be guided"):
        fit_variance(nameless, [0], steps=5, cfg_scale=2.0, shape=(2,))


ABAR = torch.from_numpy(np.cumprod(1 - np.linspace(1e-4, 2e-2, 1000))).float()


class Constant(torch.nn.Module):
    """A weight for each timestep, whatever the state."""

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(weight)

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        self.shown = x, t
        return self.weight[t]


def test_the_bound_is_least_at_the_error() -> None:
    """With data of a known variance V, sigma^2 = beta~ + b^2 E|eps - eps_theta|^2 / D."""
    V, schedule = 0.3, Schedule.ddpm(10)

    class Gaussian:
        null_label = 1

        def __call__(self, x: Tensor, t: Tensor, y: Tensor) -> TeacherOutput:
            self.shown = x, t
            slope = (1 - ABAR[t]).sqrt() / (ABAR[t] * V + 1 - ABAR[t])
            return TeacherOutput(slope[:, None] * x)

    teacher, weights = Gaussian(), Constant(torch.full((1000,), 0.5))
    optimizer = torch.optim.Adam(weights.parameters(), 0.05)
    for step in range(200):
        random = RowRandom(0, step, range(256))
        for group in optimizer.param_groups:
            group["lr"] = 0.05 * (1 - step / 200)
        x0 = V**0.5 * random.normal((64,))
        labels = torch.zeros(256, dtype=torch.int64)
        loss = sigma_loss(weights, x0, labels, random, teacher=teacher, schedule=schedule)["loss"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    torch.testing.assert_close(weights.shown, teacher.shown, rtol=0, atol=0)
    abar = schedule.signal**2
    error = schedule.b**2 * abar * V / (abar * V + 1 - abar)
    best = np.sqrt(schedule.sigma**2 + error)[:-1]
    upper = Schedule.ddpm(10, variance="upper").sigma[:-1]
    expected = np.log(best / schedule.sigma[:-1]) / np.log(upper / schedule.sigma[:-1])
    found = weights.weight.detach().numpy()[schedule.timesteps[:-1]]
    # Where the two ends are close, the weight hardly matters.
    wide = upper / schedule.sigma[:-1] > 1.05
    assert wide.sum() >= 5
    np.testing.assert_allclose(found[wide], expected[wide], atol=0.05)
