"""Settings of training: what they come to, and what they refuse."""

import dataclasses
import math
from functools import partial

import pytest

from free import DiT, DiTConfig
from free.training.drafter_score import DrafterEvaluation
from free.training.parallel import Ranks
from free.training.randomness import RowRandom
from free.training.recipe import RECIPES, Recipe, recipe_named
from free.training.trainer import TrainConfig
from tests.training.runs import config

CONFIG = partial(TrainConfig, steps=1)
EVALUATION = partial(
    DrafterEvaluation, DiT(DiTConfig(2, 1, 1, 8, 1, 2, num_classes=3, learn_sigma=False))
)


@pytest.mark.parametrize(
    ("settings", "given", "message"),
    [
        (CONFIG, {"steps": 0}, "steps must be at least 1, got 0"),
        (CONFIG, {"batch_size": 0}, "batch_size must be at least 1"),
        (CONFIG, {"learning_rate": math.nan}, "learning_rate must be positive and finite, got nan"),
        (CONFIG, {"learning_rate": 0.0}, "learning_rate must be positive and finite, got 0"),
        (CONFIG, {"warmup": 1, "decay": "cosine"}, "warmup must be less than the 1 steps"),
        (CONFIG, {"ema_decay": 1.0}, r"ema_decay must be in \[0, 1\)"),
        (CONFIG, {"decay": "linear"}, "decay must be 'constant' or 'cosine'"),
        (CONFIG, {"precision": "8"}, "precision must be 'auto', 'fp32', 'tf32' or 'bf16', got '8'"),
        (Recipe, {"sampling_steps": 2}, "sampling_steps must be at least 3, got 2"),
        (Recipe, {"feature_weight": -1}, "feature_weight must be at least 0 and finite, got -1"),
        (Recipe, {"smooth_weight": math.inf}, "smooth_weight must be at least 0 and .* got inf"),
        (Recipe, {"label_dropout": 1.5}, r"label_dropout must be in \[0, 1\], got 1.5"),
        (Recipe, {"objective": "l1"}, "objective must be 'mse' or 'delta', got 'l1'"),
        (recipe_named, {"name": "soup"}, "recipe must be one of paper, free, got 'soup'"),
        (EVALUATION, {"images": 0}, "images must be at least 1, got 0"),
        (EVALUATION, {"window": 1}, "window must be at least 2, got 1"),
        (EVALUATION, {"cfg_scale": math.inf}, "cfg_scale must be finite and >= 0, got inf"),
        (EVALUATION, {"cfg_channels": 2}, "cfg_channels must be at most the 1 of a state, got 2"),
        (Ranks(0, 3).rows, {"batch_size": 8}, "batch_size must be a multiple of .*, 3, got 8"),
        (partial(Ranks(0, 2).rows, 8, 3), {}, "micro_batch must divide .* / 2 processes, 4, got"),
        (RowRandom(0, 0, range(1)).integers, {"end": 0}, "end must be in 1..16777216, got 0"),
        (RowRandom(0, 0, range(1)).integers, {"end": 2**24 + 1}, "1..16777216, got 16777217"),
    ],
)
def test_settings_are_checked(settings, given, message) -> None:
    with pytest.raises(ValueError, match=message):
        settings(**given)


def test_rates() -> None:
    cosine = config(110, learning_rate=1.0, warmup=10, decay="cosine")
    for step, rate in ((0, 0.1), (9, 1.0), (60, 0.505), (110, 0.01)):
        assert cosine.rate(step) == pytest.approx(rate)
    assert TrainConfig(10).rate(9) == 1e-4


def test_recipes() -> None:
    """The paper's: supplement, section A, at 256; with the stride of the sampler."""
    stated = {"feature_weight": 0.5, "smooth_weight": 0.005, "label_dropout": 0.1}
    plain = {"objective": "mse", "depth": 1, "gate": False}
    assert stated.items() | plain.items() <= dataclasses.asdict(RECIPES["paper"]).items()
    assert recipe_named("free") == RECIPES["free"]
    assert recipe_named("paper", depth=2, gate=None) == Recipe(depth=2)
