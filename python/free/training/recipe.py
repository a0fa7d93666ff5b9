"""What a drafter is trained for: the terms of its loss, and where its drafts start from."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

from free.training.config import require_choices

#: How often drafts of each of 16 equal parts of a run, from noise to image, are rejected: of the
#: embedded drafter by autoregression, W = 8, guidance 1.5, 250 steps, 100 images
#: (benchmarks/rounds.py). Only the proportions count.
REJECTIONS = (
    0.016, 0.014, 0.011, 0.011, 0.012, 0.015, 0.024, 0.032,
    0.051, 0.064, 0.083, 0.114, 0.121, 0.155, 0.244, 0.573,
)  # fmt: skip

_CHOICES = {
    "stride": ("sampling", "unit"),
    "times": ("uniform", "rejections"),
    "fed": ("teacher", "own", "sweeps"),
    "objective": ("mse", "delta", "delta_squared"),
}


@dataclasses.dataclass(frozen=True)
class Recipe:
    """The drafter's loss, ``L_noise + lambda_f L_feat + lambda_s L_smooth``, and what it is shown.

    The defaults are the paper's (supplement, section A), with the sampler's stride. Each
    option, and what it is good for: ``docs/recipes.md``.

    Parameters
    ----------
    sampling_steps : int
        Length of the DDPM schedule that is to be sampled.
    stride : {"sampling", "unit"}
        How far the teacher's second pass is from its first: one transition of that schedule, or one
        of the 1000 timesteps, as the supplement's words have it.
    feature_weight, smooth_weight : float
        lambda_f and lambda_s.
    label_dropout : float
        Share of the rows whose label is the null class. Under guidance none is dropped: every
        row is evaluated with its label and without.
    objective : {"mse", "delta", "delta_squared"}
        What L_noise is: the paper's mean squared error of eps; or ``log(1 + delta)`` or
        ``delta^2`` with ``delta = |b| |eps_hat - eps| / sigma`` (Eq. 41). For small delta the
        second is proportional to the probability of rejection, which is what sampling pays for;
        unlike that probability it still pulls where every draft is rejected.
    rollout : int
        Transitions drafted from one teacher pass, fewer where the schedule ends; a row's loss is
        the mean over them.
    fed : {"teacher", "own", "sweeps"}
        Where those drafts start from. The features are the drafter's own in all cases. The states
        follow the teacher's means, or the drafter's as in autoregression; or the window is
        drafted in a few ``sweeps``, as :func:`free.rounds.draft.draft_window` does.
    sweeps : int
        With ``fed="sweeps"``: drafter calls, each for the whole window.
    times : {"uniform", "rejections"}
        How the first transition is drawn: uniformly, or every other row in proportion to
        :data:`REJECTIONS`. The rows' losses are not weighted in return.
    guidance : float
        Guidance scale of the eps that L_noise compares; 1 is none. The features of both halves are
        trained.
    depth, gate
        Of the drafter, as for :class:`free.DrafterNet`.

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
    stride: str = "sampling"
    fed: str = "teacher"
    sweeps: int = 1
    times: str = "uniform"
    guidance: float = 1.0
    depth: int = 1
    gate: bool = False

    def __post_init__(self) -> None:
        if self.sampling_steps < 3:
            raise ValueError(f"sampling_steps must be at least 3, got {self.sampling_steps}")
        for name in ("feature_weight", "smooth_weight"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ValueError(f"{name} must be at least 0 and finite, got {getattr(self, name)}")
        if not 0 <= self.label_dropout <= 1:
            raise ValueError(f"label_dropout must be in [0, 1], got {self.label_dropout}")
        require_choices(self, _CHOICES)
        if not 1 <= self.rollout <= self.sampling_steps - 2:
            raise ValueError(
                f"rollout must be in 1..{self.sampling_steps - 2} for a schedule of "
                f"{self.sampling_steps} steps, got {self.rollout}"
            )
        if not 1 <= self.sweeps <= self.rollout:
            raise ValueError(
                f"sweeps must be in 1..{self.rollout}, as many as the rollout has transitions, "
                f"got {self.sweeps}"
            )
        if self.sweeps > 1 and self.fed != "sweeps":
            raise ValueError(f"fed must be 'sweeps' for {self.sweeps} sweeps, got {self.fed!r}")
        if not 0 <= self.guidance < math.inf:
            raise ValueError(f"guidance must be finite and at least 0, got {self.guidance}")
        if self.depth < 1:
            raise ValueError(f"depth must be at least 1, got {self.depth}")


#: By name: the paper's, and what our drafters are trained with.
RECIPES = {
    "paper": Recipe(),
    "free": Recipe(objective="delta", gate=True),
}


def recipe_named(name: str, **changes: Any) -> Recipe:
    """One of :data:`RECIPES`, but for the fields that are given and not None.

    Raises
    ------
    ValueError
        If there is no such recipe, or a value is out of its range.
    """
    if name not in RECIPES:
        raise ValueError(f"recipe must be one of {', '.join(RECIPES)}, got {name!r}")
    fields = {field: value for field, value in changes.items() if value is not None}
    return dataclasses.replace(RECIPES[name], **fields)
