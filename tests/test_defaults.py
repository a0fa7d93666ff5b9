"""torch's global defaults, of dtype and device, change nothing: results are those without."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

import free
from free import DiT, DiTConfig, DrafterNet, FeatureDrafter, SpeculativeSampler
from free.evaluation import quality
from free.evaluation.inception import resize_like_tensorflow
from free.models.sigma import SigmaNet
from free.training.dataset.order import shuffled
from free.training.dataset.sets import ImageSet
from free.training.losses import drafter_loss, table_of, teacher_loss
from free.training.recipe import RECIPES
from free.training.trainer import TrainConfig, train
from free.training.variance import fit_variance, sigma_loss
from tests.pipelines import pipeline

#: On "meta" nothing has memory: what is made there by mistake cannot be computed with.
DEFAULTS = [torch.float64, torch.bfloat16, torch.float16, torch.device("meta")]
TWO = pytest.mark.parametrize("value", [torch.float64, torch.device("meta")], ids=str)
CONFIG = DiTConfig(8, 4, 1, 16, 2, 2, num_classes=3, learn_sigma=True)
LABELS = [0, 2, 1]


@contextmanager
def default(value: torch.dtype | torch.device | torch.autocast) -> Iterator[None]:
    """It is torch's global default while this lasts."""
    if isinstance(value, torch.autocast):
        with value:
            yield
        return
    if isinstance(value, torch.dtype):
        torch.set_default_dtype(value)
    else:
        torch.set_default_device(value)
    try:
        yield
    finally:
        torch.set_default_dtype(torch.float32)
        torch.set_default_device(None)


def networks() -> tuple[DiT, DrafterNet, SigmaNet]:
    """From their own first weights. As any module of torch they are made on the default device."""
    torch.manual_seed(0)
    with torch.device("cpu"):
        teacher, drafter, variance = DiT(CONFIG), DrafterNet(CONFIG, gate=True), SigmaNet(1, 4)
    drafter.initialize_from(teacher)
    generator = torch.Generator().manual_seed(1)
    for weight in (*teacher.final_layer.parameters(), *drafter.final_layer.parameters()):
        weight.data.normal_(0.0, 0.1, generator=generator)
    return teacher.eval().requires_grad_(False), drafter.requires_grad_(False), variance


def loaded(folder: Path) -> Any:
    teacher, drafter, variance = networks()
    teacher.save_pretrained(folder / "teacher", "original")
    variance.save_pretrained(folder / "variance")
    again = DiT.from_pretrained(folder / "teacher" / "model.pt", heads=2, image_size=8)
    mnist, feature = free.load_pretrained("mnist")
    variance = SigmaNet.from_pretrained(folder / "variance")
    each = (teacher, drafter, again, mnist, feature.network, variance)
    pixels = torch.from_numpy(np.linspace(0, 255, 50, dtype=np.float32)).view(2, 1, 5, 5)
    return [network.state_dict() for network in each], resize_like_tensorflow(pixels, 7)


def sampled(folder: Path) -> Any:
    teacher, network, _ = networks()
    schedule = free.Schedule.ddpm(12)
    drafter = FeatureDrafter(network, teacher)
    relaxation = free.Relaxation("allow", 0.5)
    every = {"window": 4, "sweeps": 1, "recycle": True, "cfg_scale": 1.5}
    samplers = [
        free.SequentialSampler(teacher, schedule, cfg_scale=1.5),
        SpeculativeSampler(teacher, drafter, schedule, window=4, verifier="block"),
        SpeculativeSampler(teacher, drafter, schedule, **every, relaxation=relaxation),
        SpeculativeSampler(teacher, free.FrozenDrafter(), schedule, window=3),
    ]
    drawn = [sampler.sample(LABELS, seed=7) for sampler in samplers]
    fit = fit_variance(teacher, LABELS, 6)
    return [(each.samples, each.report.accepted) for each in drawn], fit.weights.tolist()


def trained(folder: Path) -> Any:
    values = np.sin(np.linspace(-1, 1, 16 * 64, dtype=np.float32)).reshape(16, 1, 8, 8)
    data = ImageSet(torch.from_numpy(values), torch.from_numpy(np.arange(16) % 3), 3)
    teacher, drafter, variance = networks()
    frozen = {"teacher": teacher}
    recipe = dataclasses.replace(RECIPES["free"], sampling_steps=8)
    schedule = free.Schedule.ddpm(8)
    losses: list[tuple[Any, Any]] = [
        (drafter, lambda *given: drafter_loss(*given, recipe=recipe, **frozen)),
        (variance, lambda *given: sigma_loss(*given, schedule=schedule, **frozen)),
        (networks()[0], lambda *given: teacher_loss(*given, null_label=3)),
    ]
    config = TrainConfig(2, batch_size=4, precision="fp32", log_every=1)
    results = []
    for number, (network, loss) in enumerate(losses):
        network.requires_grad_(True)
        average, record = train(network, loss, data, config, folder / f"{number}", progress=False)
        results.append((average.state_dict(), record["loss"]))
    return results


def evaluated(folder: Path) -> Any:
    rng = np.random.default_rng(0)
    ours, theirs = (rng.integers(0, 256, (140, 28, 28, 1), np.uint8) for _ in range(2))
    return quality(ours, theirs, resamples=3).to_json()


@pytest.mark.parametrize("value", DEFAULTS, ids=str)
@pytest.mark.parametrize("what", [loaded, sampled, evaluated])
def test_defaults_change_nothing(what, value, tmp_path) -> None:
    same_under(value, what, tmp_path)


def test_autocast_changes_no_evaluation(tmp_path: Path) -> None:
    same_under(torch.autocast("cpu", torch.bfloat16), evaluated, tmp_path)


@TWO
def test_defaults_change_no_training(value, tmp_path) -> None:
    same_under(value, trained, tmp_path)


@TWO
def test_defaults_change_no_pipeline(value, tmp_path) -> None:
    """A saved one, with an autoencoder that diffusers makes."""
    pipeline(drafter="frozen").save_pretrained(tmp_path)

    def piped(folder: Path) -> Any:
        pipe = free.FreePipeline.from_pretrained(tmp_path)
        pipe.set_progress_bar_config(disable=True)
        torch.manual_seed(0)  # seeds are drawn from torch's own generator
        images = pipe([3, 207], num_inference_steps=3, output_type="np").images
        return images.tolist(), pipe.vae.state_dict()

    same_under(value, piped, tmp_path)


def same_under(value: Any, what: Callable[[Path], Any], folder: Path) -> None:
    """Raise unless results are the same to the bit with a default and without."""
    _forget()
    with default(value):
        result = tree_leaves(what(folder / "default"))
    _forget()
    expected = tree_leaves(what(folder / "ordinary"))
    assert [type(actual) for actual in result] == [type(ordinary) for ordinary in expected]
    for actual, ordinary in zip(result, expected, strict=True):
        if isinstance(ordinary, Tensor):
            torch.testing.assert_close(actual, ordinary, rtol=0, atol=0, equal_nan=True)
        else:
            assert actual == ordinary


def _forget() -> None:
    """What was made without the default must not serve with it."""
    for cached in (table_of, shuffled):
        cached.cache_clear()
