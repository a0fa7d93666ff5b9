"""The SDE tables against Eq. 37 and 39, and the law that they lead to."""

import itertools

import numpy as np
import pytest

from free import Schedule

STOCHASTICITIES = [0.0, 0.25, 0.5, 1.0, 1.5, 2.0]
BETAS = np.linspace(1e-4, 2e-2, 1000)


def test_vp_is_euler_maruyama() -> None:
    """With f = -beta / 2, g^2 = beta and steps of one training step, Eq. 39 term by term."""
    abar = np.cumprod(1 - BETAS)
    for eps in STOCHASTICITIES:
        schedule = Schedule.sde("vp", 1000, eps)
        beta = -np.log1p(-BETAS)[::-1][:-1]  # the integral over a step
        noise = np.sqrt(1 - abar)[::-1][:-1]
        # mean = x + gamma (-f x + (1 + eps^2) / 2 g^2 s), s = -eps_theta / noise
        np.testing.assert_allclose(schedule.a[:-1], 1 + beta / 2, rtol=1e-9)
        np.testing.assert_allclose(schedule.b[:-1], -(1 + eps**2) / 2 * beta / noise, rtol=1e-9)
        np.testing.assert_allclose(schedule.sigma[:-1], eps * np.sqrt(beta), rtol=1e-9)
        np.testing.assert_array_equal(schedule.timesteps, np.arange(1000)[::-1])


def test_linear_is_euler_maruyama() -> None:
    """Eq. 39 with f = -1 / (1 - t), g^2 = 2 t / (1 - t) and the score of a single image."""
    image, noise = 0.7, -1.3
    for eps in STOCHASTICITIES:
        schedule = Schedule.sde("linear", 500, eps)
        t = schedule.timesteps / 1000
        usual = (t > 0.1) & (t < 0.9)
        t, gamma = t[usual], 0.002
        x, velocity = (1 - t) * image + t * noise, noise - image
        f, g2, score = -1 / (1 - t), 2 * t / (1 - t), -noise / t
        mean = x + gamma * (-f * x + (1 + eps**2) / 2 * g2 * score)
        own = schedule.a[usual] * x + schedule.b[usual] * velocity
        np.testing.assert_allclose(own, mean, rtol=1e-6, atol=1e-9)
        # Eq. 39's up to second order: 2 t q - 2 gamma q - q^2
        q = eps**2 * gamma / (1 - t)
        variance = eps**2 * gamma * g2
        np.testing.assert_allclose(
            schedule.sigma[usual] ** 2, variance - 2 * gamma * q - q**2, rtol=1e-9
        )


def test_linear_keeps_the_noise_about_an_image() -> None:
    """For one image, whose velocity is known, the marginals are exact whatever the steps."""
    for steps, eps in itertools.product((3, 10, 300), STOCHASTICITIES):
        schedule = Schedule.sde("linear", steps, eps)
        after = np.append(schedule.timesteps[1:], 0) / 1000
        t, a, b = schedule.timesteps / 1000, schedule.a, schedule.b
        np.testing.assert_allclose(a * (1 - t) - b, 1 - after, rtol=1e-12)
        np.testing.assert_allclose((a * t + b) ** 2 + schedule.sigma**2, after**2, atol=1e-15)
        assert np.isfinite(schedule.sigma).all()


@pytest.mark.parametrize("kind", ["vp", "linear"])
def test_the_last_transition_returns_the_image(kind: str) -> None:
    schedule = Schedule.sde(kind, 50, 1.5)
    x0, eps = 0.3, -0.8
    x = schedule.signal[-1] * x0 + schedule.noise[-1] * eps
    assert schedule.a[-1] * x + schedule.b[-1] * eps == pytest.approx(x0, rel=1e-9)
    assert schedule.sigma[-1] == 0


def _gaussian_error(kind: str, steps: int, stochasticity: float) -> float:
    """Error of mean and variance on data of law N(0.6, 0.4^2), with the exact prediction."""
    schedule = Schedule.sde(kind, steps, stochasticity, train_steps=2000)
    m, v = 0.6, 0.16
    if kind == "vp":
        s, n = schedule.signal, schedule.noise
        slope = n / (s**2 * v + n**2)  # E[noise | x] = slope (x - s m)
        offset = -slope * s * m
    else:
        t = schedule.timesteps / 2000
        slope = (t - (1 - t) * v) / ((1 - t) ** 2 * v + t**2)  # E[n - x0 | x]
        offset = -slope * (1 - t) * m - m
    mean, variance = 0.0, 1.0  # of chains of Gaussians
    for scale, shift, sigma in zip(
        schedule.a + schedule.b * slope, schedule.b * offset, schedule.sigma, strict=True
    ):
        mean, variance = scale * mean + shift, scale**2 * variance + sigma**2
    return max(abs(mean - m), abs(variance - v))


@pytest.mark.parametrize("kind", ["vp", "linear"])
def test_every_stochasticity_tends_to_the_data(kind: str) -> None:
    """Eq. 38, without sampling: the error is of the order 1 / steps."""
    for stochasticity, steps in itertools.product(STOCHASTICITIES, (50, 200, 800, 1600)):
        assert _gaussian_error(kind, steps, stochasticity) < (1.5 + stochasticity**2) / steps


def test_a_stochasticity_beyond_all_numbers() -> None:
    with pytest.raises(ValueError, match="b must be finite, got -inf"):
        Schedule.sde("vp", 10, 1e200)
    most, all_of_it = (Schedule.sde("linear", 10, amount) for amount in (1e200, 1e5))
    np.testing.assert_array_equal(most.sigma, all_of_it.sigma)  # no more noise than there is
