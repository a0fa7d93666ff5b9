"""The table of DDPM against the textbook, computed another way."""

from collections.abc import Callable
from decimal import Decimal, getcontext

import numpy as np
import pytest

from free import Schedule
from free.schedule.clipping import Clipping


def _textbook(steps: int) -> list[tuple[int, float, float, float, float]]:
    """DDPM in 40-digit decimals: t, a, b, posterior and upper variance of each transition."""
    getcontext().prec = 40
    start, end = Decimal("1e-4"), Decimal("2e-2")
    abar, product = [], Decimal(1)
    for i in range(1000):
        product *= 1 - (start + (end - start) * i / 999)
        abar.append(product)
    rows, previous = [], Decimal(1)
    for t in (round(999 * i / (steps - 1)) for i in range(steps)):
        alpha = abar[t] / previous
        beta = 1 - alpha
        # Ho et al. (2020): mean = c0 x0 + cx x, x0 = (x - sqrt(1-abar) eps) / sqrt(abar).
        c0 = beta * previous.sqrt() / (1 - abar[t])
        cx = (1 - previous) * alpha.sqrt() / (1 - abar[t])
        a = c0 / abar[t].sqrt() + cx
        b = -c0 * (1 - abar[t]).sqrt() / abar[t].sqrt()
        posterior = beta * (1 - previous) / (1 - abar[t])
        rows.append((t, float(a), float(b), float(posterior), float(beta)))
        previous = abar[t]
    return rows[::-1]


@pytest.mark.parametrize("steps", [2, 250, 1000])
def test_ddpm_matches_textbook(steps: int) -> None:
    t, a, b, *variances = map(np.array, zip(*_textbook(steps), strict=True))
    for variance, expected in zip(("posterior", "upper"), variances, strict=True):
        schedule = Schedule.ddpm(steps, variance=variance)
        np.testing.assert_array_equal(schedule.timesteps, t)
        np.testing.assert_allclose(schedule.a, a, rtol=1e-11)
        np.testing.assert_allclose(schedule.b, b, rtol=1e-9)
        np.testing.assert_allclose(schedule.sigma[:-1], np.sqrt(expected[:-1]), rtol=1e-9)
        assert schedule.sigma[-1] == 0
        assert len(schedule) == steps


def test_schedule_knows_its_signal() -> None:
    abar = np.cumprod(1 - np.linspace(1e-4, 2e-2, 1000))
    for options in ({}, {"variance": "upper"}, {"stochasticity": 0.5}):
        schedule = Schedule.ddpm(50, **options)
        np.testing.assert_allclose(schedule.signal, np.sqrt(abar[schedule.timesteps]), rtol=1e-9)
    own = Schedule(schedule.timesteps, schedule.a, schedule.b, schedule.sigma)
    np.testing.assert_allclose(own.signal, schedule.signal, rtol=1e-9)
    np.testing.assert_allclose(own.noise, schedule.noise, rtol=1e-6)


def test_stochasticity_keeps_the_marginals() -> None:
    """With the exact eps of one image, every member of the family leads to the same marginals."""
    train = np.cumprod(1 - np.linspace(1e-4, 2e-2, 1000))
    for eta in (0.0, 0.5, 1.0):
        schedule = Schedule.ddpm(100, stochasticity=eta)
        abar = train[schedule.timesteps]
        after = np.append(abar[1:], 1.0)
        # x_k = sqrt(abar) x0 + sqrt(1-abar) eps.
        signal = schedule.a * np.sqrt(abar)
        noise = (schedule.a * np.sqrt(1 - abar) + schedule.b) ** 2 + schedule.sigma**2
        np.testing.assert_allclose(signal, np.sqrt(after), rtol=1e-9)
        np.testing.assert_allclose(noise, 1 - after, rtol=1e-7, atol=1e-12)
        np.testing.assert_allclose(schedule.sigma, eta * Schedule.ddpm(100).sigma, rtol=1e-9)


def _from_betas(**arguments: object) -> Schedule:
    return Schedule.from_betas(**{"betas": [0.1, 0.2], "timesteps": [1, 0], **arguments})


IMAGE = [[1.0, 1.0], [-0.5, -0.1]]


def _images(**arguments: object) -> Schedule:
    relation = {"signal": [0.5, 0.9], "noise": [0.5, 0.1]}
    return _columns(**{"image": IMAGE, **relation, **arguments})


def _columns(**columns: object) -> Schedule:
    own = {"timesteps": [5, 0], "a": [1.0, 1.0], "b": [0.1, 0.1], "sigma": [0.1, 0.0]}
    return Schedule(**own | columns)


@pytest.mark.parametrize(
    ("make", "arguments", "message"),
    [
        (
            Schedule.ddpm,
            {"steps": 1},
            r"steps must be an integer in 2\.\.train_steps \(1000\), got",
        ),
        (Schedule.ddpm, {"steps": 10.0}, r"steps must be an integer in .* \(1000\), got 10\.0"),
        (Schedule.ddpm, {"steps": 1001}, r"steps must be an integer in .* \(1000\), got 1001"),
        (Schedule.ddpm, {"train_steps": 2**40}, r"train_steps must be an integer in 2\.\.1000000"),
        (Schedule.ddpm, {"beta_start": 0.5, "beta_end": 0.1}, "got 0.5 and 0.1"),
        (Schedule.ddpm, {"variance": "learned"}, "'posterior', 'upper', a weight .* 'learned'"),
        (Schedule.ddpm, {"stochasticity": -1.0}, "stochasticity must be finite and >= 0"),
        (Schedule.ddpm, {"stochasticity": np.nan}, "stochasticity must be finite and >= 0"),
        (Schedule.ddpm, {"stochasticity": 1e200}, "stochasticity must be at most"),
        (Schedule.ddpm, {"stochasticity": 0.5, "variance": "upper"}, "with variance 'upper'"),
        (_from_betas, {"betas": []}, r"betas must be a non-empty vector, got shape \(0,\)"),
        (_from_betas, {"betas": [0.1, np.nan]}, r"betas must be in \(0, 1\), got nan"),
        (_from_betas, {"betas": [0.1, 1.0]}, r"betas must be in \(0, 1\), got 1.0"),
        (_from_betas, {"timesteps": [0, 1]}, r"falling integers in 0\.\.1, got \[0 1\]"),
        (_from_betas, {"timesteps": [0, -1]}, r"timesteps must be falling integers in 0\.\.1"),
        (_from_betas, {"timesteps": []}, r"timesteps must be falling integers in 0\.\.1"),
        (_columns, {"sigma": [0.1, -0.2]}, "sigma must be >= 0, got -0.2"),
        (_columns, {"sigma": [0.1]}, r"sigma must have one entry per transition \(2\), got 1"),
        (_columns, {"sigma": [np.nan, 0.0]}, "sigma must be finite, got nan"),
        (_columns, {"b": [[1.0, 2.0]]}, r"b must be a non-empty vector, got shape \(1, 2\)"),
        (_columns, {"timesteps": [0.5, -0.5]}, "timesteps must be >= 0"),
        (_columns, {"c": [0.0, 0.1]}, "c must be None without an image, got one"),
        (_columns, {"clipping": Clipping()}, "clipping must be None without an image, got one"),
        (_columns, {"input_scale": [1.0, 0.0]}, "input_scale must be > 0, got 0.0"),
        (_columns, {"guided": [1.0, 1.5]}, r"guided must be in \[0, 1\], got 1.5"),
        (_columns, {"image": IMAGE}, "signal and noise must be given with an image, got none"),
        (_images, {"image": [[1.0, 1.0]]}, r"image must be finite, of shape \[2, 2\], got shape"),
        (_images, {"image": [[1.0, 1.0], [-1.0, 0.0]]}, "image must have q != 0, got 0 at step 1"),
        (_images, {"c": [0.1, 0.0]}, "c must be 0 at the first transition, got 0.1"),
        (_images, {"clipping": Clipping(-1.0)}, "clipping must have a finite largest > 0, got -1"),
        (_images, {"clipping": Clipping(0.5, 0.9)}, "by a quantile must have a largest >= 1"),
        (_images, {"clipping": Clipping(2.0, 1.5)}, r"a quantile in \(0, 1\], or None, got 1.5"),
        (_columns, {"start": 0.0}, "start must be a finite number > 0, got 0.0"),
        (_columns, {"start": np.inf}, "start must be a finite number > 0, got inf"),
        (_images, {"timesteps": [1, 5]}, "step to step, got 1 and then 5 at step 1"),
        (_columns, {"timesteps": [5, 5]}, "step to step, got 5 and then 5 at step 1"),
        (_columns, {"signal": [0.1, 0.9]}, "signal and noise must be given together"),
        (_columns, {"signal": [0.5, 0.9], "noise": [0.5, -0.1]}, "noise must be >= 0, got -0.1"),
        (_columns, {"upper": [0.1, 0.9]}, "upper and mixture must be given together"),
        (_columns, {"upper": [0.05, 0.0], "mixture": max}, "upper must be >= sigma, and 0 where"),
        (Schedule.sde, {"kind": "cosine"}, "kind must be 'vp' or 'linear', got 'cosine'"),
        (Schedule.sde, {"stochasticity": -0.5}, "stochasticity must be finite and >= 0, got -0.5"),
        (Schedule.sde, {"stochasticity": np.inf}, "stochasticity must be finite and >= 0, got inf"),
        (Schedule.sde, {"steps": 1}, r"steps must be an integer in 2\.\.train_steps \(1000\), got"),
        (Schedule.sde, {"kind": "linear", "steps": 1001}, r"\(1000\), got 1001"),
    ],
)
def test_what_is_refused(make: Callable, arguments: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make(**arguments)


def test_schedule_cannot_be_changed() -> None:
    with pytest.raises(ValueError, match="read-only"):
        Schedule.ddpm().sigma[0] = 1.0
