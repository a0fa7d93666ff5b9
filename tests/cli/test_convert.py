"""``free convert``."""

from pathlib import Path

import pytest
import torch

from free import DiT
from free.models.summary import inspect
from tests.cli.commands import refuse, succeed
from tests.models.checkpoints.files import (
    original_state,
    same_weights,
    save_original,
    training_checkpoint,
)


def test_around_all_formats(tmp_path: Path) -> None:
    path = save_original(tmp_path)
    succeed("convert", path, tmp_path / "diffusers", "--to", "diffusers", "--heads", "4")
    succeed("convert", tmp_path / "diffusers", tmp_path / "free", "--to", "free")
    text = succeed("convert", tmp_path / "free", tmp_path / "back.pth", "--to", "original")
    assert "or with free convert --heads 4 into a format that has" in text  # every command reads it
    succeed("convert", tmp_path / "back.pth", tmp_path / "again", "--to", "free", "--heads", 4)
    state = torch.load(tmp_path / "back.pth", weights_only=True)
    assert all(torch.equal(state[name], value) for name, value in original_state().items())
    assert inspect(tmp_path / "free").config == inspect(path, heads=4).config


def test_a_missing_null_class(tmp_path: Path) -> None:
    """It is said where it can be, and noted where it cannot."""
    options = "--heads", 4, "--num-classes", 6
    succeed("convert", save_original(tmp_path), tmp_path / "free", "--to", "free", *options)
    assert "6 classes without a null class" in succeed("info", tmp_path / "free")
    text = succeed("convert", tmp_path / "free", tmp_path / "back.pt", "--to", "original")
    assert "or with free convert --num-classes 6 into a format that has" in text
    assert "6 classes without a null" in succeed("info", tmp_path / "back.pt", *options)
    assert "5 classes, predicts" in succeed("info", tmp_path / "back.pt", "--heads", 4)


def test_a_family(tmp_path: Path) -> None:
    """Likewise."""
    options = "--heads", 4, "--family", "sit"
    text = succeed("convert", save_original(tmp_path), tmp_path / "sit", "--to", "free", *options)
    assert text.startswith("SiT written")
    assert inspect(tmp_path / "sit").config.family == "sit"
    text = succeed("convert", tmp_path / "sit", tmp_path / "back.pt", "--to", "original")
    assert "or with free convert --family sit into a format that has" in text
    assert inspect(tmp_path / "back.pt", heads=4).config.family == "dit"
    refuse(
        "'diffusers' must predict epsilon",
        "convert", tmp_path / "sit", tmp_path / "new", "--to", "diffusers",
    )  # fmt: skip


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_precision_stays_unless_asked_for(tmp_path: Path, dtype: torch.dtype) -> None:
    state = {name: value.to(dtype) for name, value in original_state().items()}
    torch.save(state, tmp_path / "model.pt")
    succeed("convert", tmp_path / "model.pt", tmp_path / "same", "--to", "free", "--heads", 4)
    assert inspect(tmp_path / "same").dtypes == (dtype,)
    network = DiT.from_pretrained(tmp_path / "same", dtype=dtype)
    assert same_weights(network, DiT.from_pretrained(tmp_path / "model.pt", heads=4, dtype=dtype))
    other = tmp_path / "other"
    succeed("convert", tmp_path / "same", other, "--to", "diffusers", "--dtype", "float32")
    assert inspect(other).dtypes == (torch.float32,)


def test_records_and_constants(tmp_path: Path) -> None:
    torch.save(training_checkpoint(original_state()), tmp_path / "run.pt")
    text = succeed("convert",
        tmp_path / "run.pt", tmp_path / "one", "--to", "diffusers", "--heads", 4,
        "--constants", "diffusers",
    )  # fmt: skip
    assert "note" not in text
    succeed("convert", tmp_path / "one", tmp_path / "two", "--to", "free")
    summary = inspect(tmp_path / "two")
    assert summary.training["global_batch_size"] == 256
    assert (summary.config.timestep_divisor, summary.config.norm_eps) == (127, 1e-5)
    text = succeed("convert", tmp_path / "two", tmp_path / "three.pt", "--to", "original")
    assert "no place for the constants (timestep divisor 127, norm epsilon 1e-05)" in text
    assert "no place for the training record" in text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["model.pt", "new", "--to", "onnx"], "--to must be one of free, original, diffusers"),
        (["model.pt", "new", "--to", "free", "--dtype", "int8"], "--dtype must be one of float64"),
        (["model.pt", "old", "--to", "free"], "DESTINATION must be new or an empty folder"),
        (["model.pt", "new.pt", "--to", "free"], "DESTINATION must be a folder for --to free"),
        (["model.pt", "new", "--to", "free"], "heads must be given for weights 32 wide"),
        (["mnist", "new", "--to", "free", "--constants", "x"], "constants must be 'original'"),
    ],
)
def test_bad_options(tmp_path, arguments, message, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    save_original(tmp_path)
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / "file").write_text("")
    refuse(message, "convert", *arguments)
    assert not (tmp_path / "new").exists()
