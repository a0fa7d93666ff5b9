"""The sampler as a table: one row of numbers per transition.

Transition ``k`` (``k = 0`` is the noisiest) maps the state ``x_k`` to

    mean    = a[k] * x_k + b[k] * eps(x_k, timesteps[k])
    x_{k+1} = mean + sigma[k] * z,        z ~ N(0, I)

so every Gaussian sampler with one isotropic variance per step is a different table and
nothing else in the package needs to know which one it runs.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

__all__ = ["Schedule", "Table"]


@dataclass(frozen=True, eq=False)
class Schedule:
    """Coefficients of the ``N`` transitions of a reverse diffusion sampler.

    Parameters
    ----------
    timesteps : ndarray of int64, shape [N]
        What the network is told the time is; for DDPM the original training step.
    a, b : ndarray of float64, shape [N]
        ``mean = a * x + b * eps``.
    sigma : ndarray of float64, shape [N]
        Standard deviation of the transition, >= 0; 0 makes it deterministic.

    Raises
    ------
    ValueError
        If the arrays are not one-dimensional and of one length, are not finite, or a
        ``sigma`` is negative.
    """

    timesteps: NDArray[np.int64]
    a: NDArray[np.float64]
    b: NDArray[np.float64]
    sigma: NDArray[np.float64]

    def __post_init__(self) -> None:
        for name, dtype in (
            ("timesteps", np.int64),
            ("a", np.float64),
            ("b", np.float64),
            ("sigma", np.float64),
        ):
            column = np.array(getattr(self, name), dtype=np.float64)
            if column.ndim != 1 or column.size == 0:
                raise ValueError(f"{name} must be a non-empty vector, got shape {column.shape}")
            if column.size != np.size(self.timesteps):
                raise ValueError(
                    f"{name} must have one entry per transition "
                    f"({np.size(self.timesteps)}), got {column.size}"
                )
            if not np.isfinite(column).all():
                raise ValueError(f"{name} must be finite, got {column[~np.isfinite(column)][0]}")
            if dtype is np.int64 and ((column != np.round(column)) | (column < 0)).any():
                raise ValueError(f"{name} must be integers >= 0, got {column}")
            column = column.astype(dtype)
            column.setflags(write=False)
            object.__setattr__(self, name, column)
        if (self.sigma < 0).any():
            raise ValueError(f"sigma must be >= 0, got {self.sigma.min()}")

    def __len__(self) -> int:
        return int(self.timesteps.size)

    @property
    def signal(self) -> NDArray[np.float64]:
        """sqrt(abar) of the states, ``x_k = signal[k] x0 + sqrt(1 - signal[k]^2) eps``, [N].

        Each transition scales x0 by ``a`` and the last one returns it, so the signal is what is
        left to be multiplied. It holds for the variance-preserving tables (:meth:`ddpm`).
        """
        left = np.cumprod(self.a[::-1])[::-1]
        return np.divide(1.0, left, out=np.full_like(left, np.inf), where=left != 0)

    @classmethod
    def ddpm(
        cls,
        steps: int = 250,
        train_steps: int = 1000,
        beta_start: float = 1e-4,
        beta_end: float = 2e-2,
        variance: str = "posterior",
        stochasticity: float = 1.0,
    ) -> Schedule:
        """DDPM with linear betas, respaced as DiT does (supplement, Eq. 29).

        Parameters
        ----------
        steps : int
            Number of transitions, 2 .. ``train_steps``. The network is called at
            ``round(linspace(0, train_steps - 1, steps))``, last first.
        train_steps : int
            Number of steps the network was trained with.
        beta_start, beta_end : float
            Ends of the linear noise schedule, ``0 < beta_start <= beta_end < 1``.
        variance : {"posterior", "upper"}
            ``"posterior"`` is beta~, the smallest variance consistent with the forward
            process (the paper's choice); ``"upper"`` is beta, the largest.
        stochasticity : float
            1 is DDPM. Other values scale the noise and move the mean along DDIM's family
            (its eta): 0 is the deterministic DDIM, which can be sampled but not
            speculated. Needs ``variance="posterior"`` when it is not 1.

        Returns
        -------
        Schedule
            ``sigma[N-1] == 0``: the last transition returns the predicted image.

        Raises
        ------
        ValueError
            If an argument is out of its range.
        """
        if not isinstance(steps, int) or not 2 <= steps <= train_steps:
            raise ValueError(f"steps must be in 2..train_steps ({train_steps}), got {steps}")
        if not 0.0 < beta_start <= beta_end < 1.0:
            raise ValueError(
                "beta_start and beta_end must satisfy 0 < beta_start <= beta_end < 1, "
                f"got {beta_start} and {beta_end}"
            )
        betas = np.linspace(beta_start, beta_end, train_steps)
        timesteps = np.round(np.linspace(0, train_steps - 1, steps))[::-1]
        return cls.from_betas(betas, timesteps, variance, stochasticity)

    @classmethod
    def from_betas(
        cls,
        betas: ArrayLike,
        timesteps: ArrayLike,
        variance: str = "posterior",
        stochasticity: float = 1.0,
    ) -> Schedule:
        """DDPM with the betas that the network was trained with, on any of its timesteps.

        Parameters
        ----------
        betas : array_like of float, shape [T]
            Noise of each training step, in (0, 1).
        timesteps : array_like of int, shape [N]
            Training steps at which the network is called, in sampling order: falling, all in
            0 .. T - 1. Transition ``k`` goes from the noise level of ``timesteps[k]`` to that of
            ``timesteps[k + 1]``, the last to none.
        variance, stochasticity
            As for :meth:`ddpm`.

        Returns
        -------
        Schedule
            ``sigma[N-1] == 0``: the last transition returns the predicted image.

        Raises
        ------
        ValueError
            If an argument is out of its range.
        """
        betas, kept = np.asarray(betas, dtype=np.float64), np.asarray(timesteps)
        if betas.ndim != 1 or not betas.size:
            raise ValueError(f"betas must be a non-empty vector, got shape {betas.shape}")
        if (wrong := betas[~((betas > 0) & (betas < 1))]).size:
            raise ValueError(f"betas must be in (0, 1), got {wrong[0]}")
        if (
            kept.ndim != 1
            or not kept.size
            or (kept != np.round(kept)).any()
            or (np.diff(kept) >= 0).any()
            or not 0 <= kept[-1] <= kept[0] < betas.size
        ):
            raise ValueError(
                f"timesteps must be falling integers in 0..{betas.size - 1}, got {kept}"
            )
        if variance not in ("posterior", "upper"):
            raise ValueError(f"variance must be 'posterior' or 'upper', got {variance!r}")
        if not stochasticity >= 0 or (stochasticity != 1.0 and variance != "posterior"):
            raise ValueError(
                "stochasticity must be >= 0, and 1 unless variance is 'posterior', "
                f"got {stochasticity} with variance {variance!r}"
            )

        kept = kept.astype(np.int64)
        abar = np.cumprod(1.0 - betas)[kept]
        abar_prev = np.append(abar[1:], 1.0)
        beta = 1.0 - abar / abar_prev

        posterior = beta * (1.0 - abar_prev) / (1.0 - abar)
        eta_variance = stochasticity**2 * posterior
        if (eta_variance > 1.0 - abar_prev).any():
            limit = np.sqrt(((1.0 - abar_prev)[:-1] / posterior[:-1]).min())
            raise ValueError(
                f"stochasticity must be at most {limit:.4g} at {kept.size} steps, "
                f"got {stochasticity}"
            )
        # x0 = (x - sqrt(1-abar) eps) / sqrt(abar);
        # mean = sqrt(abar_prev) x0 + sqrt(1 - abar_prev - eta^2 beta~) eps: DDPM's mean at eta = 1.
        a = np.sqrt(abar_prev / abar)
        b = np.sqrt(1.0 - abar_prev - eta_variance) - a * np.sqrt(1.0 - abar)
        sigma = np.sqrt(eta_variance if variance == "posterior" else beta)
        sigma[-1] = 0.0
        return cls(kept, a, b, sigma)


class Table(NamedTuple):
    """A schedule as tensors on the device that holds the states.

    Attributes
    ----------
    timesteps : Tensor, shape [N], int64
    a, b, sigma, signal : Tensor, shape [N], float32
    """

    timesteps: Tensor
    a: Tensor
    b: Tensor
    sigma: Tensor
    signal: Tensor

    @classmethod
    def of(cls, schedule: Schedule, device: torch.device | str) -> Table:
        """Copy ``schedule`` to ``device``."""
        columns = (schedule.a, schedule.b, schedule.sigma, schedule.signal)
        return cls(
            torch.tensor(schedule.timesteps, device=device),
            *(torch.tensor(column, dtype=torch.float32, device=device) for column in columns),
        )

    def is_variance_preserving(self) -> bool:
        """Whether every transition before the last starts from a signal in (0, 1)."""
        drafted = self.signal[:-1]
        return bool(((drafted > 0) & (drafted < 1)).all())

    def require_signal(self) -> Tensor:
        """``signal``, for drafters that turn eps into x0.

        Raises
        ------
        ValueError
            If the schedule is not variance-preserving: then x0 and eps do not tell each other.
        """
        if not self.is_variance_preserving():
            drafted = self.signal[:-1]
            raise ValueError(
                "schedule must be variance-preserving, with signal in (0, 1), for this drafter, "
                f"got {drafted.min():g}..{drafted.max():g}"
            )
        return self.signal

    def mean(self, k: Tensor, x: Tensor, eps: Tensor) -> Tensor:
        """Mean of transition ``k [R]`` from ``x [R, ...]`` given ``eps [R, ...]``."""
        axes = [-1] + [1] * (x.dim() - 1)
        return torch.addcmul(self.a[k].view(axes) * x, self.b[k].view(axes), eps.float())
