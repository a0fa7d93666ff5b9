"""How far a figure would move if its images were drawn anew."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch

#: Standard errors to either side of a 95 % interval.
QUANTILE = 1.959964


def standard_errors(
    figures: dict[str, Callable[[torch.Tensor], float]],
    size: int,
    resamples: int,
    seed: int = 0,
    tell: Callable[[int], object] = lambda resamples: None,
) -> dict[str, float]:
    """Bootstrap standard errors: each figure's spread over sets drawn with replacement.

    The spread alone is used, not where it lies: a Frechet distance of a resample is too large by
    its bias once more, and percentiles of it may not even hold the figure itself.

    Each figure gets how often each of ``size`` images counts, [size] float64, and returns a number.
    There are at least 2 resamples; 50 give an error that is right to about a tenth. ``tell`` gets
    1 after each.
    """
    generator = torch.Generator().manual_seed(seed)
    values: dict[str, list[float]] = {name: [] for name in figures}
    for _ in range(resamples):
        resample = torch.randint(size, (size,), generator=generator, device="cpu")
        counts = torch.bincount(resample, minlength=size).double()
        for name, figure in figures.items():
            values[name].append(figure(counts))
        tell(1)
    return {
        name: float(torch.tensor(every, dtype=torch.float64, device="cpu").std())
        for name, every in values.items()
    }


def wilson_interval(share: float, size: int) -> tuple[float, float]:
    """95 % interval of a share of ``size`` images (Wilson 1927), which holds at 0 and 1 too."""
    square = QUANTILE**2 / size
    centre = share + square / 2
    reach = math.sqrt(square * (share * (1 - share) + square / 4))
    return (centre - reach) / (1 + square), (centre + reach) / (1 + square)
