"""A schedule as tensors: what eps and x0 tell of each other, and variances of the state."""

import numpy as np
import pytest
import torch

from free import Schedule, SpeculativeSampler
from free.schedule.table import Table, eps_from_image, image_from_eps
from tests.networks import MixtureTeacher


def test_mean() -> None:
    schedule = Schedule.ddpm(10)
    x, eps = torch.randn(2, 3, 4, 4), torch.randn(2, 3, 4, 4)
    table, rows = Table.of(schedule, "cpu"), torch.tensor([0, 9])
    mean = table.mean(rows, x, table.guess(rows, x, eps))
    for row, k in enumerate((0, 9)):
        expected = schedule.a[k] * x[row].double() + schedule.b[k] * eps[row].double()
        torch.testing.assert_close(mean[row].double(), expected, rtol=1e-6, atol=1e-6)


def test_image_and_eps_are_two_views_of_one_prediction() -> None:
    x, eps = torch.randn(3, 2, 4, 4), torch.randn(3, 2, 4, 4)
    signal = torch.tensor([0.01, 0.5, 0.99])
    image = image_from_eps(x, eps, signal)
    torch.testing.assert_close(eps_from_image(x, image, signal), eps, rtol=1e-4, atol=1e-4)
    # The forward process read backwards.
    for row, s in enumerate(signal.tolist()):
        noised = s * image[row] + (1 - s * s) ** 0.5 * eps[row]
        torch.testing.assert_close(noised, x[row], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", ["vp", "linear"])
def test_drafts_guess_the_image_that_the_prediction_implies(kind: str) -> None:
    """``a`` of an SDE table does not tell the signal; the table says it. So does a velocity."""
    x0, n = torch.randn(2, 19, 4)
    schedule = Schedule.sde(kind, 20, 0.7)
    table = Table.of(schedule, "cpu")
    k = torch.arange(19)
    if kind == "vp":
        abar = np.cumprod(1 - np.linspace(1e-4, 2e-2, 1000))[schedule.timesteps[:-1]]
        s, output = torch.tensor(np.sqrt(abar))[:, None], n
        x = (s * x0 + (1 - s**2).sqrt() * n).float()
    else:
        t, output = torch.tensor(schedule.timesteps[:-1] / 1000)[:, None], n - x0
        x = ((1 - t) * x0 + t * n).float()
    guess = table.guess(k, x, output)
    # x0 = (x - n eps) / s: at s = .006 rounding of x is 150 times larger in x0.
    torch.testing.assert_close(guess, x0, rtol=1e-3, atol=1e-3)
    a, b = (torch.tensor(column[:-1, None]) for column in (schedule.a, schedule.b))
    mean = (a * x + b * output).float()
    torch.testing.assert_close(table.mean(k, x, guess), mean, rtol=1e-4, atol=1e-4)


def test_a_mixture_of_the_state() -> None:
    """Between the two ends, row by row, and 0 where the last transition has no noise."""
    times: list[torch.Tensor] = []

    def weight(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        times.append(t)
        return x.flatten(1).mean(1).sigmoid()

    least, largest = (Schedule.ddpm(20, variance=name) for name in ("posterior", "upper"))
    table = Table.of(Schedule.ddpm(20, variance=weight), "cpu")
    x, k = torch.randn(20, 3, 2), torch.arange(20)
    w = weight(x, k).double().numpy()
    expected = least.sigma ** (1 - w) * largest.sigma**w
    np.testing.assert_allclose(table.sigma_at(k, x)[:-1], expected[:-1], rtol=1e-5)
    assert table.sigma_at(k, x)[-1] == 0
    np.testing.assert_array_equal(times[-1], least.timesteps)
    # Without a mixture the state does not matter.
    fixed = Table.of(least, "cpu")
    torch.testing.assert_close(fixed.sigma_at(k, x), fixed.sigma)


@pytest.mark.parametrize(
    ("mixture", "got"), [(lambda x, t: x.sigmoid(), r"\[3, 2\]"), (lambda x, t: 0.5, "0.5")]
)
def test_a_mixture_of_another_shape(mixture: object, got: str) -> None:
    table = Table.of(Schedule.ddpm(20, variance=mixture), "cpu")
    with pytest.raises(ValueError, match=rf"one weight a row, \[3\], got {got}"):
        table.sigma_at(torch.arange(3), torch.zeros(3, 2))


@pytest.mark.parametrize(("window", "drafter"), [(1, None), (4, "frozen")])
def test_a_mixture_that_is_not_finite(window: int, drafter: str | None) -> None:
    """It is named where it matters; at the last transition, which has no noise, it does not."""

    def sample(first: float) -> torch.Tensor:
        def weight(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
            return torch.where(t == 999, first, 0.1 / t)  # infinite at t = 0

        schedule = Schedule.ddpm(20, variance=weight)
        sampler = SpeculativeSampler(MixtureTeacher(4), drafter, schedule, window)
        return sampler.sample([0, 1]).samples

    assert sample(0.5).isfinite().all()
    with pytest.raises(FloatingPointError, match=r"mixture .* non-finite weight at step \[0\]"):
        sample(torch.nan)
