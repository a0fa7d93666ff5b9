"""What a drafter is trained for: the terms of its loss and what it is shown."""

from __future__ import annotations

import dataclasses

__all__ = ["Recipe"]


@dataclasses.dataclass(frozen=True)
class Recipe:
    """The drafter's loss, ``L_noise + lambda_f L_feat + lambda_s L_smooth``, and its batches.

    The defaults are the paper's (supplement, section A).

    Parameters
    ----------
    sampling_steps : int
        Length of the DDPM schedule whose strides are trained.
    feature_weight, smooth_weight : float
        lambda_f and lambda_s.
    label_dropout : float
        Share of the rows whose label is the null class.
    objective : {"mse", "delta"}
        What L_noise is: the paper's mean squared error, or ``log(1 + delta)`` with
        ``delta = |b| |eps_hat - eps| / sigma`` (Eq. 41). For small delta that is proportional to
        the probability of rejection, which is what sampling pays for; unlike that probability
        it still pulls where every draft is rejected.
    rollout : int
        Steps that the drafter feeds on its own output, along the teacher's trajectory; the
        losses are averaged over them.

    Raises
    ------
    ValueError
        If a value is out of its range.
    """

    sampling_steps: int = 250
    feature_weight: float = 0.5
    smooth_weight: float = 0.005
    label_dropout: float = 0.1
    objective: str = "mse"
    rollout: int = 1

    def __post_init__(self) -> None:
        if self.sampling_steps < 3:
            raise ValueError(f"sampling_steps must be at least 3, got {self.sampling_steps}")
        for name in ("feature_weight", "smooth_weight"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must be at least 0, got {getattr(self, name)}")
        if not 0 <= self.label_dropout <= 1:
            raise ValueError(f"label_dropout must be in [0, 1], got {self.label_dropout}")
        if self.objective not in ("mse", "delta"):
            raise ValueError(f"objective must be 'mse' or 'delta', got {self.objective!r}")
        if not 1 <= self.rollout <= self.sampling_steps - 2:
            raise ValueError(
                f"rollout must be in 1..{self.sampling_steps - 2} for a schedule of "
                f"{self.sampling_steps} steps, got {self.rollout}"
            )
