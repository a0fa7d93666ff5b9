"""Figures of two sets of features: Frechet distance and inception score, in float64."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

#: Rows that are turned to float64 at a time.
_ROWS = 4096
#: ADM's evaluator, as the original code, takes the score of each 5,000 images and averages.
SPLIT = 5000


class Gaussian(NamedTuple):
    """Mean [D] and covariance [D, D] (divided by n - 1) of a set of features, float64."""

    mean: Tensor
    covariance: Tensor


def gaussian(features: Tensor, counts: Tensor | None = None) -> Gaussian:
    """Mean and covariance of [n, D], block by block: beside the features it needs a few [D, D].

    A row counts ``counts`` [n] float64 times (of a resample), once by default.

    Raises
    ------
    ValueError
        If the features are not finite, or too few for a covariance: n must be more than D, or some
        directions would have no variance at all.
    """
    if features.ndim != 2 or len(features) <= features.shape[1]:
        raise ValueError(
            "features must be of more images than dimensions for a covariance, "
            f"got shape {list(features.shape)}"
        )
    size, dims = features.shape
    weights = features.new_ones(size, dtype=torch.float64) if counts is None else counts
    total = weights.sum()
    mean = features.new_zeros(dims, dtype=torch.float64)
    for start in range(0, size, _ROWS):
        mean += weights[start : start + _ROWS] @ features[start : start + _ROWS].double()
    mean /= total
    scatter = features.new_zeros(dims, dims, dtype=torch.float64)
    for start in range(0, size, _ROWS):
        rows = features[start : start + _ROWS].double() - mean
        scatter += rows.T @ (rows * weights[start : start + _ROWS, None])
    if not bool(scatter.isfinite().all()):
        raise ValueError("features must be finite, got NaN or infinity")
    return Gaussian(mean, scatter / (total - 1))


def covariance_factor(covariance: Tensor) -> Tensor:
    """A matrix F with ``F F^T`` the covariance [D, D]; exactly 0 where there is no variance."""
    values, vectors = torch.linalg.eigh(covariance)
    # Below this an eigenvalue is rounding; its root would not be small.
    floor = len(values) * torch.finfo(values.dtype).eps * values[-1].clamp(min=0)
    return vectors * values.where(values > floor, 0).sqrt()


def frechet_distance(a: Gaussian, b: Gaussian) -> float:
    """Squared Frechet (2-Wasserstein) distance of two Gaussians.

    ``|m_a - m_b|^2 + tr(S_a + S_b - 2 (S_a S_b)^(1/2))`` (Heusel et al. 2017). The root's trace is
    the sum of the singular values of ``F_a^T F_b`` for any factors ``S = F F^T``, which keeps the
    precision that the root of a nearly singular product loses.

    A ValueError if they are of different dimensions, or not finite.
    """
    if a.mean.shape != b.mean.shape:
        raise ValueError(
            "statistics must be of the same features, "
            f"got {len(a.mean)} and {len(b.mean)} dimensions"
        )
    if not all(bool(part.isfinite().all()) for part in (*a, *b)):
        raise ValueError("statistics must be finite, got NaN or infinity")
    cross = covariance_factor(a.covariance).T @ covariance_factor(b.covariance)
    shared = torch.linalg.svdvals(cross).sum()
    spread = a.covariance.trace() + b.covariance.trace() - 2 * shared
    # Of equal ones it is 0 but for rounding, which has no sign to keep.
    return max(float((a.mean - b.mean).square().sum() + spread), 0.0)


def inception_score(
    probabilities: Tensor, counts: Tensor | None = None, split: int = SPLIT
) -> float:
    """``exp(mean KL(p(y|x) || p(y)))`` (Salimans et al. 2016), averaged over splits in order.

    Probabilities are [n, C]; ``counts`` [n] float64 is how often each image counts, once by
    default. The last split may have fewer images.
    """
    scores = []
    for start in range(0, len(probabilities), split):
        part = probabilities[start : start + split].double()
        weights = torch.ones_like(part[:, 0]) if counts is None else counts[start : start + split]
        weights = weights / weights.sum()
        entropy = weights @ torch.special.entr(part).sum(1)
        scores.append((torch.special.entr(weights @ part).sum() - entropy).exp())
    return float(torch.stack(scores).mean())
