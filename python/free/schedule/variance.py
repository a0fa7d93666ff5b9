"""Variances of DDPM's transitions: how far between the posterior's and beta (supplement, C).

Both ends are consistent with the forward process: the posterior's ``beta~`` if the image is known
and a single point, beta if it is standard normal. Between them, a weight ``w`` stands for
``posterior^(1-w) upper^w``; networks with learned variance return one for each pixel.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray

from free.files import read_json, shown, write_json


@dataclass(frozen=True, eq=False)
class VarianceFit:
    """Weights between the posterior's variance (0) and beta (1), by the network's timestep.

    ``timesteps`` fall, int64 [M]; ``weights``, float64 [M], are as fitted: a network may go beyond
    0 and 1. Raises ValueError if they are not finite vectors of one length, or ``timesteps`` do not
    fall.
    """

    timesteps: NDArray[np.int64]
    weights: NDArray[np.float64]

    def __post_init__(self) -> None:
        for name in ("timesteps", "weights"):
            column = np.asarray(getattr(self, name), dtype=np.float64)
            if column.ndim != 1 or not column.size or not np.isfinite(column).all():
                raise ValueError(f"{name} must be a non-empty vector of numbers, got {column}")
            object.__setattr__(self, name, column)
        if self.timesteps.size != self.weights.size:
            raise ValueError(
                f"weights must have one entry a timestep ({self.timesteps.size}), "
                f"got {self.weights.size}"
            )
        if (np.diff(self.timesteps) >= 0).any():
            raise ValueError(f"timesteps must fall, got {self.timesteps}")

    def at(self, timesteps: NDArray[np.int64]) -> NDArray[np.float64]:
        """Weights at other timesteps, by linear interpolation; the ends' beyond the ends."""
        return np.interp(timesteps, self.timesteps[::-1], self.weights[::-1])

    def save(self, path: str | Path, **notes: object) -> None:
        """Write as JSON; ``notes`` say where it came from and are not read."""
        columns = {"timesteps": self.timesteps.tolist(), "weights": self.weights.tolist()}
        write_json(path, {"kind": "variance", **columns, **notes})

    @classmethod
    def load(cls, path: str | Path) -> VarianceFit:
        """Read what :meth:`save` wrote.

        Raises ValueError if the file is missing or is not one.
        """
        try:
            record = read_json(path, "table")
            if record.get("kind") != "variance":
                raise ValueError(f"it is of kind {shown(record.get('kind'))}")
            return cls(record["timesteps"], record["weights"])
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(
                f"variance must be a table of free fit-variance (JSON), got {path}: {error}"
            ) from error


#: What one number a transition can be made of; see :meth:`free.Schedule.ddpm`.
Variance = str | float | ArrayLike | VarianceFit


def fixed_variance(
    variance: Variance,
    posterior: NDArray[np.float64],
    upper: NDArray[np.float64],
    timesteps: NDArray[np.int64],
) -> NDArray[np.float64]:
    """The variances [N] that ``variance`` stands for; see :meth:`free.Schedule.ddpm`.

    ``posterior`` and ``upper`` [N] are the two ends; their last entry is not used, nor is the
    result's.

    Raises ValueError if ``variance`` stands for none, or is out of range.
    """
    if isinstance(variance, str):
        if variance not in ("posterior", "upper"):
            raise ValueError(
                "variance must be 'posterior', 'upper', a weight in [0, 1], an array of variances, "
                f"a VarianceFit or a function of the state, got {variance!r}"
            )
        return posterior if variance == "posterior" else upper
    if isinstance(variance, VarianceFit):
        return _mixture(posterior, upper, variance.at(timesteps))
    try:
        column = np.asarray(variance, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise ValueError(f"variance must be numbers, got {variance!r}") from error
    if column.ndim == 0:
        if not 0.0 <= column <= 1.0:
            raise ValueError(f"variance must be a weight in [0, 1], got {variance!r}")
        return _mixture(posterior, upper, column)
    if column.shape != posterior.shape:
        raise ValueError(
            f"variance must have one entry a transition ({posterior.size}), "
            f"got shape {column.shape}"
        )
    if (wrong := ~(np.isfinite(column) & (column >= 0))).any():
        k = int(wrong.argmax())
        raise ValueError(f"variance must be finite and >= 0, got {column[k]} at step {k}")
    return column


def _mixture(
    posterior: NDArray[np.float64], upper: NDArray[np.float64], weight: NDArray[np.float64]
) -> NDArray[np.float64]:
    """The geometric mixture; 0 for the last transition, which has no posterior variance."""
    weight = np.broadcast_to(weight, posterior.shape)
    return np.append(posterior[:-1] * (upper[:-1] / posterior[:-1]) ** weight[:-1], 0.0)
