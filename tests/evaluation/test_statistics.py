"""Figures of features beside scipy's and numpy's own, to 1e-6 and closer."""

import numpy as np
import pytest
import scipy.linalg
import torch
from torch import Tensor

from free.evaluation.statistics import (
    Gaussian,
    covariance_factor,
    frechet_distance,
    gaussian,
    inception_score,
)


def _features(seed: int, size: int = 400, dims: int = 48, offset: float = 3.0) -> Tensor:
    """Correlated, as features are, some directions hardly varying."""
    rng = np.random.default_rng(seed)
    mixing = rng.normal(size=(dims, dims)) * np.geomspace(1, 1e-3, dims)
    return torch.from_numpy(rng.normal(size=(size, dims)) @ mixing.T + offset + 0.1 * seed).float()


def _by_scipy(a: Tensor, b: Tensor) -> float:
    """Heusel et al.'s own formula."""
    one, two = (part.double().numpy() for part in (a, b))
    cov = [np.cov(part, rowvar=False) for part in (one, two)]
    root = scipy.linalg.sqrtm(cov[0] @ cov[1])
    mean = one.mean(0) - two.mean(0)
    return float(mean @ mean + np.trace(cov[0] + cov[1] - 2 * root.real))


def test_mean_and_covariance_are_numpys(monkeypatch: pytest.MonkeyPatch) -> None:
    """In several blocks, of float32 features that lie far from 0."""
    monkeypatch.setattr("free.evaluation.statistics._ROWS", 130)
    features = _features(0, offset=1000.0)
    found = gaussian(features)
    values = features.double().numpy()
    np.testing.assert_allclose(found.mean, values.mean(0), rtol=1e-13)
    wanted = np.cov(values, rowvar=False)
    np.testing.assert_allclose(found.covariance, wanted, rtol=1e-9, atol=1e-12)


def test_counts_are_rows_that_come_again() -> None:
    features = _features(1)
    counts = torch.randint(0, 4, (len(features),))
    found = gaussian(features, counts.double())
    wanted = gaussian(features.repeat_interleave(counts, 0))
    torch.testing.assert_close(found.mean, wanted.mean, rtol=1e-12, atol=0)
    torch.testing.assert_close(found.covariance, wanted.covariance, rtol=1e-9, atol=1e-12)


def test_the_frechet_distance_is_scipys() -> None:
    a, b = _features(0), _features(1)
    found = frechet_distance(gaussian(a), gaussian(b))
    wanted = _by_scipy(a, b)
    assert abs(found - wanted) < 1e-6 * wanted
    # Of equal sets it is nothing.
    same = gaussian(_features(2))
    assert frechet_distance(same, same) < 1e-12 * float(same.covariance.trace())


def test_of_covariances_that_commute_it_is_known() -> None:
    """Also where neither has full rank, and the root of the product does not exist."""
    rotation = torch.linalg.qr(torch.randn(6, 6, dtype=torch.float64)).Q
    one, two = torch.tensor([4.0, 1, 9, 0, 0, 1e-8]), torch.tensor([1.0, 0, 4, 2, 0, 1e-6])
    mean = torch.zeros(6, dtype=torch.float64)
    a, b = (Gaussian(mean, rotation * values.double() @ rotation.T) for values in (one, two))
    wanted = float((one.double().sqrt() - two.double().sqrt()).square().sum())
    assert abs(frechet_distance(a, b) - wanted) < 1e-9
    moved = Gaussian(mean + 2, b.covariance)
    assert abs(frechet_distance(a, moved) - wanted - 24) < 1e-9


def test_a_factor_has_no_noise_where_there_is_no_variance() -> None:
    features = _features(3)
    features[:, 5] = 7.0  # a feature that never changes
    covariance = gaussian(features).covariance
    factor = covariance_factor(covariance)
    torch.testing.assert_close(factor @ factor.T, covariance, rtol=1e-10, atol=1e-12)
    assert int((factor.norm(dim=0) == 0).sum()) == 1


def _scores(size: int = 700, classes: int = 10) -> Tensor:
    return (3 * torch.randn(size, classes)).softmax(1)


@pytest.mark.parametrize("split", [5000, 200])
def test_the_score_is_the_original_codes(split: int) -> None:
    probabilities = _scores()
    wanted = []
    for start in range(0, 700, split):
        part = probabilities[start : start + split].double().numpy()
        divergence = part * (np.log(part) - np.log(part.mean(0, keepdims=True)))
        wanted.append(np.exp(divergence.sum(1).mean()))
    assert abs(inception_score(probabilities, split=split) - np.mean(wanted)) < 1e-9


def test_the_score_lies_between_1_and_the_classes() -> None:
    assert inception_score(torch.full((30, 10), 0.1)) == pytest.approx(1)
    certain = torch.eye(10).repeat(3, 1)  # with zeros, whose logarithms do not exist
    assert inception_score(certain) == pytest.approx(10)
    counts = (torch.arange(30) % 10 < 5).double()
    assert inception_score(certain, counts) == pytest.approx(5)


def test_what_is_refused() -> None:
    features = _features(0)
    features[7, 3] = torch.nan
    with pytest.raises(ValueError, match="features must be finite, got NaN or infinity"):
        gaussian(features)
    with pytest.raises(ValueError, match=r"more images than dimensions .* got shape \[48, 48\]"):
        gaussian(_features(0, size=48))
    good = gaussian(_features(0))
    with pytest.raises(ValueError, match="statistics must be finite"):
        frechet_distance(good, Gaussian(good.mean * torch.nan, good.covariance))
    other = gaussian(_features(0, dims=47))
    with pytest.raises(ValueError, match="of the same features, got 48 and 47 dimensions"):
        frechet_distance(good, other)
