"""What a drafter is trained for: the terms of its loss, and how large it is."""

from __future__ import annotations

import dataclasses
from typing import Any

from free.arguments import as_integer, as_number
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
        kept: dict[str, Any] = {
            "sampling_steps": as_integer(
                self.sampling_steps, "sampling_steps must be at least 3", 3
            ),
            "label_dropout": as_number(
                self.label_dropout, "label_dropout must be in [0, 1]", 0.0, 1.0
            ),
            "depth": as_integer(self.depth, "depth must be at least 1", 1),
        }
        for name in ("feature_weight", "smooth_weight"):
            kept[name] = as_number(
                getattr(self, name), f"{name} must be at least 0 and finite", 0.0
            )
        require_choices(self, {"objective": ("mse", "delta")})
        for name, value in kept.items():  # Python's, which can be written as JSON
            object.__setattr__(self, name, value)


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
