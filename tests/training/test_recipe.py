"""What a recipe refuses."""

import pytest

from free.training.recipe import Recipe


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"sampling_steps": 2}, "sampling_steps must be at least 3, got 2"),
        ({"feature_weight": -0.1}, "feature_weight must be at least 0, got -0.1"),
        ({"smooth_weight": -1}, "smooth_weight must be at least 0, got -1"),
        ({"label_dropout": 1.5}, r"label_dropout must be in \[0, 1\], got 1.5"),
        ({"objective": "l1"}, "objective must be 'mse' or 'delta', got 'l1'"),
        ({"rollout": 0}, r"rollout must be in 1\.\.248 .* 250 steps, got 0"),
        ({"sampling_steps": 5, "rollout": 4}, r"rollout must be in 1\.\.3 .* 5 steps, got 4"),
    ],
)
def test_recipes_are_checked(settings: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Recipe(**settings)
