"""What fixes a transition's variance, and the file of a fitted one."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from free import Schedule, SpeculativeSampler
from free.schedule.table import Table
from free.schedule.variance import VarianceFit
from tests.networks import MixtureTeacher

POSTERIOR, UPPER = (Schedule.ddpm(20, variance=name) for name in ("posterior", "upper"))


def test_a_number_is_a_geometric_mixture() -> None:
    for weight in (0.0, 0.3, 1.0):
        sigma = Schedule.ddpm(20, variance=weight).sigma
        expected = POSTERIOR.sigma ** (1 - weight) * UPPER.sigma**weight
        np.testing.assert_allclose(sigma, expected, rtol=1e-12)


def test_only_sigma_differs() -> None:
    """The mean is the posterior's, whatever the variance."""
    for variance in (0.5, np.full(20, 0.01), "upper"):
        schedule = Schedule.ddpm(20, variance=variance)
        for name in ("timesteps", "a", "b", "signal", "noise"):
            np.testing.assert_array_equal(getattr(schedule, name), getattr(POSTERIOR, name))
        assert schedule.sigma[-1] == 0


def test_an_array_holds_variances() -> None:
    variances = np.linspace(0.5, 0.1, 20)
    sigma = Schedule.ddpm(20, variance=variances).sigma
    np.testing.assert_allclose(sigma[:-1], np.sqrt(variances[:-1]))


def test_a_fit_is_interpolated() -> None:
    fit = VarianceFit(np.array([900, 100]), np.array([0.2, 0.8]))
    np.testing.assert_allclose(fit.at(np.array([999, 900, 500, 100, 3])), [0.2, 0.2, 0.5, 0.8, 0.8])
    schedule = Schedule.ddpm(20, variance=fit)
    weights = fit.at(schedule.timesteps)
    expected = POSTERIOR.sigma ** (1 - weights) * UPPER.sigma**weights
    np.testing.assert_allclose(schedule.sigma[:-1], expected[:-1], rtol=1e-12)


def test_a_fit_is_kept(tmp_path: Path) -> None:
    fit = VarianceFit(np.array([999, 500, 0]), np.array([0.1, 1 / 3, 1.2]))
    fit.save(tmp_path / "fit.json", source="a test")
    read = VarianceFit.load(tmp_path / "fit.json")
    np.testing.assert_array_equal(read.timesteps, fit.timesteps)
    np.testing.assert_array_equal(read.weights, fit.weights)
    assert json.loads((tmp_path / "fit.json").read_text())["source"] == "a test"


@pytest.mark.parametrize(
    ("variance", "message"),
    [
        ("learned", "variance must be 'posterior', 'upper', a weight in .* got 'learned'"),
        (1.5, r"variance must be a weight in \[0, 1\], got 1.5"),
        (-0.1, r"variance must be a weight in \[0, 1\], got -0.1"),
        (float("nan"), r"variance must be a weight in \[0, 1\], got nan"),
        (None, r"variance must be a weight in \[0, 1\], got None"),
        ({}, "variance must be numbers, got {}"),
        ([0.1] * 19, r"variance must have one entry a transition \(20\), got shape \(19,\)"),
        ([[0.1] * 20], r"one entry a transition \(20\), got shape \(1, 20\)"),
        ([0.1] * 7 + [-1.0] * 13, "variance must be finite and >= 0, got -1.0 at step 7"),
        ([np.nan] * 20, "variance must be finite and >= 0, got nan at step 0"),
    ],
)
def test_bad_variances(variance: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Schedule.ddpm(20, variance=variance)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "variance must be a fitted table"),
        ("[]", "variance must be a table of free fit-variance"),
        ('{"kind": "sigma"}', "variance must be a table of free fit-variance"),
        ('{"kind": "variance", "timesteps": [1]}', "variance must be a whole table"),
        (
            '{"kind": "variance", "timesteps": [2, 1], "weights": [0.5]}',
            r"weights must have one entry a timestep \(2\), got 1",
        ),
        (
            '{"kind": "variance", "timesteps": [1, 2], "weights": [0.5, 0.5]}',
            "timesteps must fall, got",
        ),
        (
            '{"kind": "variance", "timesteps": [2, 1], "weights": [0.5, NaN]}',
            "weights must be a non-empty vector of numbers",
        ),
    ],
)
def test_bad_tables(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "fit.json").write_text(text)
    with pytest.raises(ValueError, match=message):
        VarianceFit.load(tmp_path / "fit.json")


def test_a_missing_table(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"variance must be a fitted table .*nothing\.json"):
        VarianceFit.load(tmp_path / "nothing.json")


def test_a_mixture_of_the_state() -> None:
    """Between the two ends, row by row, and 0 where the last transition has no noise."""
    seen: list[torch.Tensor] = []

    def weight(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        seen.append(t)
        return x.flatten(1).mean(1).sigmoid()

    table = Table.of(Schedule.ddpm(20, variance=weight), "cpu")
    x, k = torch.randn(20, 3, 2), torch.arange(20)
    w = weight(x, k).double().numpy()
    expected = POSTERIOR.sigma ** (1 - w) * UPPER.sigma**w
    np.testing.assert_allclose(table.sigma_at(k, x)[:-1], expected[:-1], rtol=1e-5)
    assert table.sigma_at(k, x)[-1] == 0
    np.testing.assert_array_equal(seen[-1], POSTERIOR.timesteps)
    # Without a mixture the state does not matter.
    fixed = Table.of(POSTERIOR, "cpu")
    torch.testing.assert_close(fixed.sigma_at(k, x), fixed.sigma)


def test_a_mixture_of_another_shape() -> None:
    table = Table.of(Schedule.ddpm(20, variance=lambda x, t: x.sigmoid()), "cpu")
    with pytest.raises(ValueError, match=r"one weight a row, \[3\], got \[3, 2\]"):
        table.sigma_at(torch.arange(3), torch.zeros(3, 2))
    table = Table.of(Schedule.ddpm(20, variance=lambda x, t: 0.5), "cpu")
    with pytest.raises(ValueError, match=r"one weight a row, \[3\], got 0.5"):
        table.sigma_at(torch.arange(3), torch.zeros(3, 2))


@pytest.mark.parametrize(("window", "drafter"), [(1, None), (4, "frozen")])
def test_a_mixture_that_is_not_finite(window: int, drafter: str | None) -> None:
    """It is named where it matters; at the last transition, which has no noise, it does not."""

    def sample(first: float) -> torch.Tensor:
        def weight(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
            return torch.where(t == 999, first, 0.1 / t)  # infinite at t = 0

        schedule = Schedule.ddpm(20, variance=weight)
        return (
            SpeculativeSampler(MixtureTeacher(4), drafter, schedule, window).sample([0, 1]).samples
        )

    assert sample(0.5).isfinite().all()
    with pytest.raises(FloatingPointError, match=r"mixture .* non-finite weight at step \[0\]"):
        sample(torch.nan)
