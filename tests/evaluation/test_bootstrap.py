"""Errors and intervals beside those that are known."""

import math

import pytest
import torch
from scipy.stats import binomtest

from free.evaluation.bootstrap import standard_errors, wilson_interval


def test_of_a_mean_it_is_the_known_error() -> None:
    values = torch.randn(500, dtype=torch.float64).sort().values
    figures = {"mean": lambda counts: float(counts @ values / counts.sum())}
    found = standard_errors(figures, 500, 400)["mean"]
    assert found == pytest.approx(float(values.std()) / math.sqrt(500), rel=0.12)
    assert standard_errors(figures, 500, 400)["mean"] == found
    assert standard_errors(figures, 500, 400, seed=1)["mean"] != found


@pytest.mark.parametrize(("right", "size"), [(0, 20), (7, 20), (20, 20), (950, 1000)])
def test_shares_have_wilsons_interval(right: int, size: int) -> None:
    wanted = binomtest(right, size).proportion_ci(method="wilson")
    assert wilson_interval(right / size, size) == pytest.approx(tuple(wanted), abs=1e-6)
