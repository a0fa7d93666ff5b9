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
        ({"objective": "l1"}, "objective must be 'mse' or 'delta', got 'l1'"),
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
    plain = {"objective": "mse", "depth": 1, "gate": False}
    assert stated.items() | plain.items() <= paper.items()


def test_a_recipe_with_changes() -> None:
    assert recipe_named("free") == RECIPES["free"]
    assert recipe_named("paper", depth=2, gate=None) == Recipe(depth=2)
    with pytest.raises(ValueError, match="recipe must be one of paper, free, got 'soup'"):
        recipe_named("soup")
    with pytest.raises(ValueError, match="depth must be at least 1"):
        recipe_named("paper", depth=0)
