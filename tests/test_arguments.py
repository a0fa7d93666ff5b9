"""Numbers of NumPy are taken wherever Python's are; booleans and fractions are not."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from free import AutoWindow, DiTConfig, DrafterNet, Relaxation, Schedule, SpeculativeSampler
from free.arguments import as_integer, as_number
from free.generation.plan import make_plan
from free.models.guidance import Guidance
from free.models.sigma import SigmaNet
from free.pipeline.arguments import cfg_scale
from free.rounds.noise import Purpose, as_seeds, normal
from free.schedule.diffusers import ddpm_config
from free.training.config import TrainConfig
from free.training.dataset.decoder import Decoder
from free.training.recipe import Recipe
from free.window import FixedWindow
from tests.generation import runs
from tests.networks import MixtureTeacher
from tests.ops.examples import EXAMPLES


@pytest.mark.parametrize("value", [3, np.int64(3), np.uint8(3), np.array(3)])
def test_integers(value: Any) -> None:
    number = as_integer(value, "n must be an integer in 3..4", 3, 4)
    assert number == 3
    assert type(number) is int


@pytest.mark.parametrize(
    "value",
    [True, np.True_, 3.0, np.float64(3), "3", None, 2, 5, 2**70, pytest.param(10**5000, id="vast")],
)
def test_no_integers(value: Any) -> None:
    with pytest.raises(ValueError, match=r"^n must be an integer in 3\.\.4, got "):
        as_integer(value, "n must be an integer in 3..4", 3, 4)


@pytest.mark.parametrize("value", [0.5, np.float32(0.5), np.float64(0.5)])
def test_numbers(value: Any) -> None:
    assert type(as_number(value, "w", 0.0, 1.0)) is float
    assert as_number(np.int8(1), "w", 0.0, 1.0) == 1.0


@pytest.mark.parametrize(
    "value", [True, np.True_, "1", None, 1j, -0.1, 1.1, float("nan"), float("inf"), 10**400]
)
def test_no_numbers(value: Any) -> None:
    with pytest.raises(ValueError, match=r"^w must be in \[0, 1\], got "):
        as_number(value, "w must be in [0, 1]", 0.0, 1.0)


#: What takes an integer n >= 2.
TAKES: dict[str, Any] = {
    "ddpm": lambda n: Schedule.ddpm(n),
    "train_steps": lambda n: Schedule.ddpm(2, train_steps=n),
    "sde": lambda n: Schedule.sde("linear", n),
    "diffusers": lambda n: Schedule.from_scheduler(ddpm_config(), n),
    "guidance": lambda n: Guidance(1.5, n, 0),
    "window": lambda n: FixedWindow(n),
    "auto": lambda n: AutoWindow(n),
    "config": lambda n: json.dumps(asdict(DiTConfig(8, n, n, 16, n, n, num_classes=n))),
    "drafter": lambda n: DrafterNet(DiTConfig(8, 4, 1, 16, 2, 2), depth=n),
    "sigma": lambda n: SigmaNet(n, n),
    "num": lambda n: make_plan(MixtureTeacher(), n, "balanced", 0, n),
    "decoder": lambda n: Decoder(None, [], None, n, n),  # type: ignore[arg-type]
    "training": lambda n: json.dumps(asdict(TrainConfig(n, n, seed=n, warmup=n, save_every=n))),
    "recipe": lambda n: json.dumps(asdict(Recipe(depth=n))),
}


@pytest.mark.parametrize("name", TAKES)
def test_every_integer(name: str) -> None:
    TAKES[name](np.int64(2))
    for wrong in (True, 2.0):
        with pytest.raises(ValueError, match=f"got {wrong!r}"):
            TAKES[name](wrong)


def _numpy(value: Any) -> Any:
    """A number or a flag, but not a tensor or a word, as NumPy's."""
    kinds = {bool: np.bool_, int: np.int64, float: np.float32}
    return kinds[type(value)](value) if type(value) in kinds else value


@pytest.mark.parametrize(
    "name", {example.name: name for name, example in EXAMPLES.items()}.values()
)
def test_every_op(name: str) -> None:
    example = EXAMPLES[name]
    given = {key: _numpy(value) for key, value in example.given.items()}
    plain = {k: v.item() if isinstance(v, np.generic) else v for k, v in given.items()}
    found, expected = (example._replace(given=one).by_op() for one in (given, plain))
    for one, other in zip(found, expected, strict=True):
        if name != "guesses, not rolled":  # whose results have places that nobody writes
            torch.testing.assert_close(one, other, rtol=0, atol=0, equal_nan=True)


SCALES: dict[str, Any] = {
    "guidance": lambda w: Guidance(w, None, 0).scale,
    "pipeline": cfg_scale,
    "stochasticity": lambda w: Schedule.ddpm(4, stochasticity=w),
    "sde": lambda w: Schedule.sde("vp", 4, w),
    "variance": lambda w: Schedule.ddpm(4, variance=w),
    "training": lambda w: json.dumps(asdict(TrainConfig(4, learning_rate=w, ema_decay=w))),
    "recipe": lambda w: json.dumps(asdict(Recipe(feature_weight=w, label_dropout=w))),
}


@pytest.mark.parametrize("name", SCALES)
def test_every_number(name: str) -> None:
    SCALES[name](np.float32(0.5))
    with pytest.raises(ValueError, match="got True"):
        SCALES[name](True)


def test_a_sampler() -> None:
    """As a sweep over ``np.arange`` asks for it."""
    teacher = MixtureTeacher()

    def draw(three: Any, one: Any, labels: Any) -> Any:
        settings = {"window": three, "sweeps": one, "recycle": True}
        sampler = SpeculativeSampler(teacher, "frozen", Schedule.ddpm(8), **settings)
        assert json.dumps([sampler.window, sampler.sweeps]) == "[3, 1]"
        rounds, samples = sampler.begin(labels, three)
        rounds.draft(samples, three)
        return sampler.sample(labels, three).samples

    expected = draw(3, 1, [0, 1])
    for labels in ([np.int64(0), np.int64(1)], np.arange(2), np.arange(2, dtype=np.uint64)):
        assert torch.equal(draw(np.int64(3), np.int32(1), labels), expected)


def test_a_large_set(tmp_path: Path) -> None:
    """It is the one that Python's numbers make, and says so."""
    settings = {"labels": "random", "batch_size": np.int64(3), "report": tmp_path / "x.json"}
    found = runs.draw(tmp_path / "x.npz", num=np.int64(4), seed=np.int64(-1), **settings)
    assert found.drawn == 4
    again = runs.draw(tmp_path / "x.npz", num=4, seed=-1, labels="random")
    assert again.drawn == 0


def test_noise() -> None:
    expected = normal([5, 6], 3, 0, Purpose.TRANSITION, (2,))
    seeds = np.array([5, 6]).tolist()
    for three in (np.int64(3), np.uint8(3)):
        drawn = normal(seeds, three, np.int64(0), Purpose.TRANSITION, (np.int64(2),))
        assert torch.equal(drawn, expected)
    wrapped = as_seeds([np.uint64(2**64 - 1), np.int64(-1)])
    assert wrapped.tolist() == [-1, -1]
    with pytest.raises(TypeError, match="seeds: expected integers, got bool"):
        as_seeds([True])


def test_a_relaxation() -> None:
    assert Relaxation("allow", np.float32(0.5), np.int64(1)) == Relaxation("allow", 0.5, 1)
    with pytest.raises(ValueError, match="strength must be finite and >= 0, got "):
        Relaxation("allow", np.complex64(1))
