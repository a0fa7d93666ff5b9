"""Our format: round trips, and files that are not what they should be."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from free import DiT, DiTConfig, DrafterNet, load_pretrained
from free.models.checkpoint import bundle_path, load_network, save_network
from tests.networks import randomized

CONFIG = DiTConfig(8, 4, 1, 16, 1, 2, num_classes=3)


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    save_network(randomized(DiT(CONFIG)), tmp_path / "teacher", {"steps": 7})
    save_network(randomized(DrafterNet(CONFIG)), tmp_path / "drafter")
    return tmp_path


def test_round_trip_is_exact(bundle: Path) -> None:
    teacher, drafter = load_pretrained(bundle)
    assert teacher.config == CONFIG
    for name, value in randomized(DiT(CONFIG)).state_dict().items():
        torch.testing.assert_close(teacher.state_dict()[name], value, rtol=0, atol=0)
    for name, value in randomized(DrafterNet(CONFIG)).state_dict().items():
        torch.testing.assert_close(drafter.network.state_dict()[name], value, rtol=0, atol=0)
    assert not teacher.training
    assert not any(weight.requires_grad for weight in teacher.parameters())
    assert json.loads((bundle / "teacher/config.json").read_text())["training"] == {"steps": 7}


def test_half_precision_files_load_as_float32(bundle: Path) -> None:
    network = randomized(DiT(CONFIG))
    save_network(network, bundle / "teacher", dtype=torch.float16)
    loaded = load_network(bundle / "teacher", "dit")
    weight = loaded.blocks[0].mlp.fc1.weight
    assert weight.dtype == torch.float32
    torch.testing.assert_close(weight, network.blocks[0].mlp.fc1.weight, rtol=1e-3, atol=1e-4)


def test_unknown_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="model must be one of mnist or a folder with teacher"):
        bundle_path(tmp_path)


@pytest.mark.parametrize("damage", ["missing", "truncated", "empty"])
def test_damaged_weights_are_refused(bundle: Path, damage: str) -> None:
    weights = bundle / "teacher" / "model.safetensors"
    content = weights.read_bytes()
    weights.unlink()
    if damage != "missing":
        weights.write_bytes(content[: len(content) // 2 if damage == "truncated" else 0])
    with pytest.raises(ValueError, match=r"model.safetensors are missing or truncated"):
        load_pretrained(bundle)


def test_wrong_weights_are_listed(bundle: Path) -> None:
    weights = bundle / "teacher" / "model.safetensors"
    state = load_file(weights)
    state["extra"] = torch.zeros(1)
    del state["pos_embed"]
    state["final_layer.linear.bias"] = torch.zeros(3)
    save_file(state, weights)
    message = (
        r"missing pos_embed; unexpected extra; "
        r"final_layer.linear.bias has shape \[3\], expected \[32\]"
    )
    with pytest.raises(ValueError, match=message):
        load_pretrained(bundle)


@pytest.mark.parametrize("text", ["", "{}", '{"kind": "dit", "architecture": {"wings": 2}}'])
def test_malformed_config_is_refused(bundle: Path, text: str) -> None:
    (bundle / "teacher" / "config.json").write_text(text)
    with pytest.raises(ValueError, match=r"config.json is missing or malformed"):
        load_pretrained(bundle)


def test_other_kind_is_refused(bundle: Path) -> None:
    with pytest.raises(ValueError, match="must hold a 'drafter' network, got 'dit'"):
        load_network(bundle / "teacher", "drafter")
