"""What fixes a transition's variance, and the file of a fitted one."""

import json
from pathlib import Path

import numpy as np
import pytest

from free import Schedule
from free.schedule.variance import VarianceFit

POSTERIOR, UPPER = (Schedule.ddpm(20, variance=name) for name in ("posterior", "upper"))
FIT = VarianceFit(np.array([900, 100]), np.array([0.2, 0.8]))


def _mixture(weight: object) -> object:
    return POSTERIOR.sigma ** (1 - weight) * UPPER.sigma**weight


@pytest.mark.parametrize(
    ("variance", "sigma"),
    [
        (0.0, _mixture(0.0)),
        (0.3, _mixture(0.3)),
        (1.0, _mixture(1.0)),
        (FIT, _mixture(FIT.at(POSTERIOR.timesteps))),
        (np.linspace(0.5, 0.1, 20), np.sqrt(np.linspace(0.5, 0.1, 20))),
    ],
)
def test_only_sigma_differs(variance: object, sigma: np.ndarray) -> None:
    """The mean is the posterior's, whatever the variance; the last transition has none."""
    schedule = Schedule.ddpm(20, variance=variance)
    np.testing.assert_allclose(schedule.sigma[:-1], sigma[:-1], rtol=1e-12)
    assert schedule.sigma[-1] == 0
    for name in ("timesteps", "a", "b", "signal", "noise"):
        np.testing.assert_array_equal(getattr(schedule, name), getattr(POSTERIOR, name))


def test_a_fit_is_interpolated() -> None:
    weights = FIT.at(np.array([999, 900, 500, 100, 3]))
    np.testing.assert_allclose(weights, [0.2, 0.2, 0.5, 0.8, 0.8])


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
        (1.5, r"variance must be a weight in \[0, 1\], got 1.5"),
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


RECORD = '{"kind": "variance", "timesteps": %s, "weights": %s}'


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "No such file"),
        ("{", "is missing or malformed: JSONDecodeError"),
        ('{"kind": "sigma"}', "it is of kind 'sigma'"),
        ('{"kind": "variance", "timesteps": [1]}', "'weights'"),
        (RECORD % ([2, 1], [0.5]), r"weights must have one entry a timestep \(2\), got 1"),
        (RECORD % ([1, 2], [0.5, 0.5]), "timesteps must fall, got"),
        (RECORD % ([2, 1], "[0.5, NaN]"), "weights must be a non-empty vector of numbers"),
    ],
)
def test_bad_tables(tmp_path: Path, text: str | None, message: str) -> None:
    if text is not None:
        (tmp_path / "fit.json").write_text(text)
    expected = rf"variance must be a table of free fit-variance .*fit\.json: .*{message}"
    with pytest.raises(ValueError, match=expected):
        VarianceFit.load(tmp_path / "fit.json")
