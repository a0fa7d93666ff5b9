"""SiT's and REPA's checkpoints: what is told from them, what is ignored, and what they compute."""

import argparse
import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from free import DiT, DiTConfig, DrafterNet
from free.models.checkpoints.configs import published_name
from free.models.guidance import Guidance, GuidedTeacher
from free.models.summary import inspect
from tests.models.checkpoints.files import (
    CONFIG,
    original_state,
    same_weights,
    save_original,
    training_checkpoint,
)
from tests.models.numpy_dit import numpy_dit

#: REPA's network has no second set of output channels.
REPA = dataclasses.replace(CONFIG, learn_sigma=False, prediction="velocity")
NORMED = dataclasses.replace(REPA, qk_norm=True)
SIT = dataclasses.replace(CONFIG, prediction="velocity", reversed_time=True)
TIMES = torch.tensor([1.0, 0.7254, 0.31, 0.0371, 0.0])


def repa_state(config: DiTConfig = REPA) -> dict[str, Tensor]:
    """REPA's state dict: the network's, and a projector's three layers.

    Normed queries and keys are small before, so that the norm's epsilon counts.
    """
    projector = {
        f"projectors.0.{layer}.{leaf}": torch.zeros(shape)
        for layer in (0, 2, 4)
        for leaf, shape in (("weight", (40, 40)), ("bias", (40,)))
    }
    state = original_state(config)
    for name, value in state.items():
        if config.qk_norm and "attn.qkv" in name:
            value[: 2 * config.hidden_size] *= 0.005
    return {**state, **projector}


def repa_run(**arguments: object) -> dict[str, object]:
    """What REPA's training script writes."""
    run = training_checkpoint(repa_state())
    args = argparse.Namespace(
        **{"path_type": "linear", "prediction": "v", "data_dir": "/x", "qk_norm": False} | arguments
    )
    return {**run, "args": args, "steps": 400_000}


def save(path: Path, content: object) -> Path:
    torch.save(content, path)
    return path


def load(path: Path, **options: Any) -> DiT:
    return DiT.from_pretrained(path, heads=4, **options)


def states() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(3)
    return torch.randn((5, 3, 8, 8), generator=generator), torch.tensor([2, 0, 5, 4, 1])


def close(actual: Tensor, expected: np.ndarray) -> None:
    atol = 2e-5 * np.abs(expected).max()
    np.testing.assert_allclose(actual.numpy(), expected, rtol=0, atol=atol)


def test_sit_is_evaluated_at_its_own_time(tmp_path: Path) -> None:
    """Its own time s is 1 at the image, its velocity x0 - n, so that x0 = x + (1 - s) velocity."""
    network = load(save_original(tmp_path), family="sit")
    assert network.config == SIT
    x, y = states()
    out = network(x, TIMES, y)
    assert out.variance is None  # the second half of the channels is no variance
    for row, t in enumerate(TIMES.double().tolist()):
        image = x[row].double().numpy()
        own = numpy_dit(original_state(), 4, image, 1 - t, int(y[row]))[:3]
        close(out.eps[row], -own)
        close(x[row] - TIMES[row] * out.eps[row], image + t * own)


@pytest.mark.parametrize("config", [REPA, NORMED], ids=["", "qk norm"])
def test_repa_is_told_by_its_projectors(tmp_path: Path, config: DiTConfig) -> None:
    state = repa_state(config)
    network = load(save(tmp_path / "last.pt", state))
    assert network.config == config
    x, y = states()
    out = network(x, TIMES, y)
    for row, t in enumerate(TIMES.double().tolist()):
        close(out.eps[row], numpy_dit(state, 4, x[row].double().numpy(), t, int(y[row])))
    summary = inspect(tmp_path / "last.pt", heads=4)
    assert summary.ignored == ("projectors.*, 4,920 values",)
    # A DiT that was trained with projectors, too, is what the caller says it is.
    assert load(tmp_path / "last.pt", family="dit").config.prediction == "epsilon"


def test_training_checkpoints_tell_the_family(tmp_path: Path) -> None:
    path = save(tmp_path / "0400000.pt", repa_run())
    network, summary = load(path), inspect(path, heads=4)
    assert network.config == summary.config == REPA
    assert (summary.format, summary.training) == ("training", {"qk_norm": False})
    assert torch.equal(network.blocks[0].mlp.fc1.weight, repa_state()["blocks.0.mlp.fc1.weight"])
    with pytest.raises(ValueError, match="family must be the repa of .*0400000.pt, got sit"):
        load(path, family="sit")
    told = argparse.Namespace(path_type="Linear", prediction="velocity", loss_weight=None)
    save(path, {**training_checkpoint(original_state()), "args": told})
    assert load(path).config == SIT
    save(path, training_checkpoint(original_state()))  # DiT's script has no such arguments
    assert load(path).config == CONFIG


@pytest.mark.parametrize(
    ("arguments", "got"),
    [
        ({"path_type": "cosine"}, "'cosine' and 'v'"),
        ({"path_type": "GVP", "prediction": "velocity"}, "'GVP' and 'velocity'"),
        ({"path_type": "Linear", "prediction": "score"}, "'Linear' and 'score'"),
        ({"prediction": None}, "'linear' and None"),
        ({"path_type": torch.zeros(2)}, r"tensor\(\[0., 0.\]\) and 'v'"),
    ],
)
def test_other_paths_are_refused(tmp_path: Path, arguments: dict, got: str) -> None:
    path = save(tmp_path / "run.pt", repa_run(**arguments))
    for family in (None, "repa"):
        with pytest.raises(ValueError, match=f"must be Linear and velocity, .*or linear.*{got}$"):
            load(path, family=family)


def test_a_family_is_kept_where_there_is_a_place(tmp_path: Path) -> None:
    path = save(tmp_path / "last.pt", repa_state(NORMED))
    sit, repa = load(save_original(tmp_path), family="sit"), load(path)
    for network in (sit, repa):
        family, folder = network.config.family, tmp_path / network.config.family
        network.save_pretrained(folder)
        network.save_pretrained(tmp_path / "back.pt", "original")
        for back in (
            DiT.from_pretrained(folder),
            DiT.from_pretrained(folder, family=family),
            load(tmp_path / "back.pt", family=family),
        ):
            assert back.config == network.config
            assert same_weights(back, network)
        assert "velocity n - x0 at times from 0" in (folder / "README.md").read_text()
        with pytest.raises(ValueError, match=f"family must be the {family} of .*, got dit"):
            DiT.from_pretrained(folder, family="dit")
        with pytest.raises(ValueError, match="'diffusers' must predict epsilon, .* a velocity"):
            network.save_pretrained(tmp_path / "diffusers", "diffusers")
    with pytest.raises(ValueError, match="family must be one of dit, sit, repa or None, got 'DiT'"):
        load(path, family="DiT")
    normed = load(path, family="dit")
    with pytest.raises(ValueError, match="'diffusers' must have no qk_norm, got a network with it"):
        normed.save_pretrained(tmp_path / "diffusers", "diffusers")


def test_names() -> None:
    config = DiTConfig.named("DiT-XL/2")
    for family, name in ((SIT, "SiT-XL/2 at 256"), (REPA, "SiT-XL/2 at 256"), (CONFIG, None)):
        own = dataclasses.replace(
            config, prediction=family.prediction, reversed_time=family.reversed_time
        )
        assert published_name(own) == (name or "DiT-XL/2 at 256")


def test_guidance_and_drafters_take_such_times(tmp_path: Path) -> None:
    network = load(save_original(tmp_path), family="sit")
    x, y = states()
    guided = GuidedTeacher(network, Guidance(1.8, None, 5))(x, TIMES, y).eps
    with_label, without = network(x, TIMES, y).eps, network(x, TIMES, torch.full_like(y, 5)).eps
    torch.testing.assert_close(guided, without + 1.8 * (with_label - without))
    drafter = DrafterNet(network.config)
    drafter.initialize_from(network)
    torch.testing.assert_close(drafter.t_embedder(TIMES), network.t_embedder(TIMES))
    blocks = DiT(dataclasses.replace(SIT, block_embedders=True)).block_embedders
    for block in blocks:
        block.load_state_dict({"y_embedder.embedding_table.weight": torch.zeros(6, 32), **{
            name: value for name, value in network.state_dict().items() if "t_embedder" in name
        }})  # fmt: skip
        torch.testing.assert_close(block(TIMES, y), network.t_embedder(TIMES))
    normed = load(save(tmp_path / "last.pt", repa_state(NORMED)))
    with pytest.raises(ValueError, match="t must be floating-point times in 0..1 .* got int64"):
        normed(x, torch.tensor([999, 500, 3, 1, 0]), y)
    own = DrafterNet(NORMED)
    own.initialize_from(normed)
    assert torch.equal(own.blocks[0].attn.q_norm.weight, normed.blocks[-1].attn.q_norm.weight)
    assert SIT.misfit(REPA) == "learn_sigma False, not True, reversed_time False, not True"
    assert CONFIG.misfit(SIT) == "prediction velocity, not epsilon, reversed_time True, not False"
