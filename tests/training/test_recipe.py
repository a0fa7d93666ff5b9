"""What a recipe refuses."""

import dataclasses
import math

import pytest

from free.training.recipe import RECIPES, Recipe, recipe_named


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"sampling_steps": 2}, "sampling_steps must be at least 3, got 2"),
        ({"feature_weight": -0.1}, "feature_weight must be at least 0 and finite, got -0.1"),
        ({"smooth_weight": math.inf}, "smooth_weight must be at least 0 and finite, got inf"),
        ({"label_dropout": 1.5}, r"label_dropout must be in \[0, 1\], got 1.5"),
        ({"objective": "l1"}, "objective must be 'mse', 'delta' or 'delta_squared', got 'l1'"),
        ({"stride": "two"}, "stride must be 'sampling' or 'unit', got 'two'"),
        ({"times": "late"}, "times must be 'uniform' or 'rejections', got 'late'"),
        ({"fed": "x"}, "fed must be 'teacher', 'own' or 'sweeps', got 'x'"),
        ({"rollout": 0}, r"rollout must be in 1\.\.248 .* 250 steps, got 0"),
        ({"sampling_steps": 5, "rollout": 4}, r"rollout must be in 1\.\.3 .* 5 steps, got 4"),
        ({"fed": "sweeps", "rollout": 3, "sweeps": 4}, r"sweeps must be in 1\.\.3, .* got 4"),
        ({"fed": "sweeps", "rollout": 3, "sweeps": 0}, r"sweeps must be in 1\.\.3, .* got 0"),
        ({"rollout": 3, "sweeps": 2}, "fed must be 'sweeps' for 2 sweeps, got 'teacher'"),
        ({"guidance": -1.0}, "guidance must be finite and at least 0, got -1.0"),
        ({"guidance": math.nan}, "guidance must be finite and at least 0, got nan"),
        ({"depth": 0}, "depth must be at least 1, got 0"),
    ],
)
def test_recipes_are_checked(settings: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Recipe(**settings)


def test_the_papers_recipe() -> None:
    """Supplement, section A, at 256; with the stride of the sampler."""
    paper = dataclasses.asdict(RECIPES["paper"])
    stated = {"feature_weight": 0.5, "smooth_weight": 0.005, "label_dropout": 0.1}
    plain = {"objective": "mse", "rollout": 1, "fed": "teacher", "times": "uniform", "depth": 1}
    assert stated.items() | plain.items() <= paper.items()


def test_a_recipe_with_changes() -> None:
    assert recipe_named("free") == RECIPES["free"]
    assert recipe_named("paper", depth=2, rollout=None) == Recipe(depth=2)
    with pytest.raises(ValueError, match="recipe must be one of paper, free, got 'soup'"):
        recipe_named("soup")
    with pytest.raises(ValueError, match="rollout must be in"):
        recipe_named("paper", rollout=0)
