"""How far samples are from others that they should nearly be."""

from __future__ import annotations

import math
from typing import NamedTuple

from torch import Tensor

from free.arguments import as_number


class Deviation(NamedTuple):
    """The difference of samples to a reference.

    Attributes
    ----------
    psnr : float
        Peak signal-to-noise ratio in decibels, ``10 log10(span^2 / mean squared difference)``, over
        all samples; infinite if there is no difference.
    largest : float
        The largest difference of two values, in the samples' unit.
    """

    psnr: float
    largest: float

    @classmethod
    def of(cls, samples: Tensor, reference: Tensor, span: float | None = None) -> Deviation:
        """Compare ``samples`` with a ``reference`` of the same shape.

        Parameters
        ----------
        samples, reference : Tensor
        span : float, optional
            Distance of the largest value from the smallest, > 0: 2 for images in [-1, 1]. By
            default that of the reference, as for latents, whose range is their own.

        Raises
        ------
        ValueError
            If the shapes differ, a value is not finite, or ``span`` is no such number.
        """
        if samples.shape != reference.shape:
            raise ValueError(
                f"reference must be of the samples' shape, {list(samples.shape)}, "
                f"got {list(reference.shape)}"
            )
        own, other = (each.detach().cpu().double() for each in (samples, reference))
        for name, values in (("samples", own), ("reference", other)):
            if not bool(values.isfinite().all()):
                raise ValueError(f"{name} must be finite, got a value that is not")
        if span is None:
            span = float(other.max() - other.min())
        span = as_number(span, "span must be a finite number > 0", math.ulp(0.0))
        gone = own - other
        error = float(gone.square().mean())
        psnr = 10.0 * math.log10(span**2 / error) if error else math.inf
        return cls(psnr, float(gone.abs().max()))

    def __str__(self) -> str:
        return f"{self.psnr:.1f} dB, at most {self.largest:.2g}"
