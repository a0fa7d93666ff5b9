"""``free info``, of the installation and of a checkpoint."""

from pathlib import Path

import torch

from free import DiT, DiTConfig, DrafterNet
from tests.cli.commands import figures, refuse, succeed
from tests.models.checkpoints.files import original_state, save_original, training_checkpoint


def test_the_installation() -> None:
    record = figures("info")
    assert set(record["models"]) == {"mnist", "emoji"}
    assert record["extension"]["compiler"]
    assert "free-dit" in succeed("info")


def test_a_published_size(tmp_path: Path) -> None:
    config = DiTConfig.named("DiT-S/8")
    DiT(config).save_pretrained(tmp_path / "teacher", "diffusers", dtype=torch.float16)
    DrafterNet(config).save_pretrained(tmp_path / "small")
    DrafterNet(DiTConfig.named("DiT-S/4")).save_pretrained(tmp_path / "fine")
    text = succeed("info", tmp_path / "teacher")
    for part in (
        "DiT-S/8 at 256: ",
        "format: diffusers",
        "384 wide, 12 blocks, 6 heads, patch 8, input 4 x 32 x 32, 1000 classes, predicts eps and",
        "precision: float16",
        "timestep divisor 128, norm epsilon 1e-06",
        "training record: none",
        "/small: fits",
        "/fine: does not fit: patch_size 4, not 8",
    ):
        assert part in text
    record = figures("info", tmp_path / "teacher")
    assert (record["name"], record["precision"]) == ("DiT-S/8 at 256", ["float16"])
    assert record["architecture"]["hidden_size"] == 384
    assert [entry["fits"] for entry in record["drafter"]["beside"]] == [False, True]
    drafter = figures("info", tmp_path / "small")
    assert drafter["kind"] == "drafter"
    assert drafter["parameters"] == record["drafter"]["parameters"]
    assert "drafter for DiT-S/8 at 256" in succeed("info", tmp_path / "small")


def test_a_training_checkpoint(tmp_path: Path) -> None:
    torch.save(training_checkpoint(original_state()), tmp_path / "run.pt")
    text = succeed("info", tmp_path / "run.pt", "--heads", 4)
    assert "training checkpoint; its averaged weights" in text
    assert "DiT of no published size" in text
    assert "training record: yes" in text


def test_networks_of_a_velocity(tmp_path: Path) -> None:
    sit = save_original(tmp_path)
    assert "predicts eps and variance" in succeed("info", sit, "--heads", 4)
    text = succeed("info", sit, "--heads", 4, "--family", "sit")
    for part in (
        "SiT of no published size: ",
        "predicts the velocity n - x0 at times from 0 (image x0) to 1 (noise n), from weights of S",
        "ignored: the second half of the output channels",
    ):
        assert part in text
    torch.save({**original_state(), "projectors.0.0.bias": torch.zeros(9)}, tmp_path / "last.pt")
    record = figures("info", tmp_path / "last.pt", "--heads", 4)
    assert record["ignored"] == ["projectors.*, 9 values", "the second half of the output channels"]
    assert record["architecture"]["prediction"] == "velocity"
    assert figures("info", sit, "--heads", 4)["ignored"] == []


def test_what_it_cannot_tell(tmp_path: Path) -> None:
    refuse("heads must be given for weights 32 wide", "info", save_original(tmp_path))
    refuse("which does not exist", "info", tmp_path / "nothing")
