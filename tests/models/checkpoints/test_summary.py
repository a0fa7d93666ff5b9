"""What a checkpoint is said to be."""

import dataclasses
import os
from pathlib import Path

import pytest
import torch

from free import DiT, DiTConfig, DrafterNet
from free.models.checkpoints.configs import published_name
from free.models.checkpoints.tensors import StoredTensor
from free.models.summary import drafters_beside, inspect
from tests.models.checkpoints.files import CONFIG, original_state, save_original


def test_original(tmp_path: Path) -> None:
    path = save_original(tmp_path)
    summary = inspect(path, heads=4)
    assert (summary.path, summary.format, summary.kind) == (path, "original", "teacher")
    assert summary.config == CONFIG
    assert summary.name is None
    state = original_state()
    values = sum(value.numel() for name, value in state.items() if name != "pos_embed")
    assert summary.parameters == values
    assert summary.bytes == 4 * sum(value.numel() for value in state.values())
    assert summary.training is None


def test_several_precisions(tmp_path: Path) -> None:
    state = original_state()
    state = {name: value.half() if "mlp" in name else value for name, value in state.items()}
    state["pos_embed"] = state["pos_embed"].bfloat16()
    torch.save(state, tmp_path / "model.pt")
    summary = inspect(tmp_path / "model.pt", heads=4)
    assert summary.dtypes == (torch.bfloat16, torch.float16, torch.float32)
    assert summary.dtype == torch.float32
    del state["blocks.0.mlp.fc2.bias"]
    torch.save(state, tmp_path / "model.pt")
    with pytest.raises(ValueError, match=r"do not fit the architecture: missing blocks.0.mlp.fc2"):
        inspect(tmp_path / "model.pt", heads=4)


@pytest.mark.parametrize("form", ["free", "original", "diffusers"])
def test_no_weight_is_read(tmp_path: Path, form: str, monkeypatch: pytest.MonkeyPatch) -> None:
    DiT(CONFIG).save_pretrained(tmp_path, form)
    for name in ("copy_into", "equals"):
        monkeypatch.setattr(StoredTensor, name, lambda *_: pytest.fail("it was read"))
    assert inspect(tmp_path, heads=4).format == form
    with pytest.raises(pytest.fail.Exception, match="it was read"):
        DiT.from_pretrained(tmp_path, heads=4)


def test_published_names() -> None:
    for name in ("DiT-S/8", "DiT-XL/2"):
        assert published_name(DiTConfig.named(name)) == f"{name} at 256"
        assert published_name(DiTConfig.named(name, 64)) == f"{name} at 512"
    assert published_name(DiTConfig.named("DiT-B/4", channels=3)) == "DiT-B/4"
    for other in ({"heads": 8}, {"depth": 3}, {"patch_size": 1}, {"mlp_ratio": 2.0}):
        config = dataclasses.replace(DiTConfig.named("DiT-XL/2"), **other)
        assert published_name(config) is None


def test_drafters_beside(tmp_path: Path) -> None:
    DiT(CONFIG).save_pretrained(tmp_path / "bundle" / "teacher")
    DrafterNet(CONFIG).save_pretrained(tmp_path / "bundle" / "drafter")
    other = dataclasses.replace(CONFIG, depth=7, image_size=16)
    DrafterNet(other).save_pretrained(tmp_path / "bundle" / "deeper")
    for name, text in (
        ("noise", "{"), ("list", "[]"), ("deep", "[" * 100_000), ("vae", '{"_class_name": "X"}')
    ):  # fmt: skip
        (tmp_path / "bundle" / name).mkdir()
        (tmp_path / "bundle" / name / "config.json").write_text(text)
    (tmp_path / "bundle" / "pipe").mkdir()
    os.mkfifo(tmp_path / "bundle" / "pipe" / "config.json")
    alone = save_original(tmp_path / "bundle")
    for source in (tmp_path / "bundle", tmp_path / "bundle" / "teacher", alone):
        found = drafters_beside(inspect(source, heads=4))
        assert [(drafter.folder.name, drafter.misfit) for drafter in found] == [
            ("deeper", "image_size 16, not 8, depth 7, not 3"),
            ("drafter", ""),
        ]
