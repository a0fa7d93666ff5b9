"""Intervals hold what they should as often as they say."""

import math
from functools import partial

import pytest
import torch
from scipy.stats import binomtest
from torch import Tensor

from free.evaluation.bootstrap import QUANTILE, standard_errors, wilson_interval
from free.evaluation.statistics import Gaussian, frechet_distance, gaussian


def test_of_a_mean_it_is_the_known_error() -> None:
    values = torch.randn(500, dtype=torch.float64)
    figures = {"mean": lambda counts: float(counts @ values / counts.sum())}
    found = standard_errors(figures, 500, 400)["mean"]
    assert found == pytest.approx(float(values.std()) / math.sqrt(500), rel=0.12)
    assert standard_errors(figures, 500, 400)["mean"] == found
    assert standard_errors(figures, 500, 400, seed=1)["mean"] != found


@pytest.mark.parametrize(("right", "size"), [(0, 20), (7, 20), (20, 20), (950, 1000)])
def test_shares_have_wilsons_interval(right: int, size: int) -> None:
    wanted = binomtest(right, size).proportion_ci(method="wilson")
    assert wilson_interval(right / size, size) == pytest.approx(tuple(wanted), abs=1e-6)


def _drawn(seed: int, shift: float, dims: int = 4) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(300, dims, generator=generator) + shift


def _standard(dims: int) -> Gaussian:
    return Gaussian(torch.zeros(dims).double(), torch.eye(dims).double())


def test_intervals_of_a_distance_hold_its_mean() -> None:
    """Between 88 % and 100 % of 100 intervals, 95 being meant: 4 standard errors and a bit."""

    def distance(features: Tensor, *counts: Tensor) -> float:
        return frechet_distance(gaussian(features, *counts), _standard(4))

    values = [distance(_drawn(i, 0.3)) for i in range(600)]
    truth, held = sum(values) / len(values), 0
    for i in range(100):
        figures = {"distance": partial(distance, _drawn(i, 0.3))}
        error = standard_errors(figures, 300, 50, seed=i)["distance"]
        held += abs(values[i] - truth) <= QUANTILE * error
    assert 87 <= held <= 100
