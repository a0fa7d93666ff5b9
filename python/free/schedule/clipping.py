"""Limits of the predicted image, as samplers of pixels and of robot actions put them.

What a limit makes of x0 depends on the row alone, so a transition stays one Gaussian.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from free.arguments import as_number


class Clipping(NamedTuple):
    """How x0 is limited before a transition's mean is made of it.

    Attributes
    ----------
    largest : float
        x0 is kept within ``-largest .. largest``, > 0. With a quantile, the most that it may be.
    quantile : float or None
        Dynamic thresholding (Saharia et al. 2022, section 2.3): ``s`` is this quantile of a row's
        ``|x0|``, in (0, 1], but at least 1 and at most ``largest``; x0 is kept within ``-s .. s``
        and divided by ``s``.
    """

    largest: float = 1.0
    quantile: float | None = None

    def check(self) -> None:
        """Raise a ValueError if a number is out of its range."""
        as_number(self.largest, "clipping must have a finite largest > 0", math.ulp(0.0))
        if self.quantile is not None:
            expected = "clipping must have a quantile in (0, 1], or None"
            as_number(self.quantile, expected, math.ulp(0.0), 1.0)
            as_number(self.largest, "clipping by a quantile must have a largest >= 1", 1.0)

    def __call__(self, image: Tensor) -> Tensor:
        """Limit images [R, ...]."""
        if self.quantile is None:
            return image.clamp(-self.largest, self.largest)
        rows = image.flatten(1)
        scale = _quantile(rows.abs(), self.quantile).clamp(1.0, self.largest)
        return (rows.clamp(-scale, scale) / scale).view_as(image)


def _quantile(rows: Tensor, share: float) -> Tensor:
    """A quantile of each of ``rows [R, D]``, [R, 1], linear between the nearest two elements.

    As ``torch.quantile`` has it, which in older versions refuses more than 16 million elements, as
    windows of large images have.
    """
    place = share * (rows.shape[1] - 1)
    low, high = math.floor(place), math.ceil(place)
    ordered = rows.sort(dim=1).values
    return torch.lerp(ordered[:, low, None], ordered[:, high, None], place - low)
