"""What a drafter is trained for: the terms of its loss, and how large it is."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

from free.training.config import require_choices

#: Fields of former versions, with the values that a recipe of this version stands for.
FORMER_FIELDS: dict[str, Any] = {
    "rollout": 1,
    "fed": "teacher",
    "sweeps": 1,
    "stride": "sampling",
    "times": "uniform",
    "guidance": 1.0,
}


@dataclasses.dataclass(frozen=True)
class Recipe:
    """The drafter's loss, ``L_noise + lambda_f L_feat + lambda_s L_smooth``, and its size.

    The defaults are the paper's (supplement, section A), with the sampler's stride. What each
    option is good for: ``docs/recipes.md``.

    Parameters
    ----------
    sampling_steps : int
        Length of the DDPM schedule that is to be sampled.
    feature_weight, smooth_weight : float
        lambda_f and lambda_s.
    label_dropout : float
        Share of the rows whose label is the null class.
    objective : {"mse", "delta"}
        What L_noise is: the paper's mean squared error of eps; or ``log(1 + delta)`` with
        ``delta = |b| |eps_hat - eps| / sigma`` (Eq. 41). For small delta the latter is
        proportional to the probability of rejection, which is what sampling pays for; unlike that
        probability it still pulls where every draft is rejected.
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
        require_choices(self, {"objective": ("mse", "delta")})
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
