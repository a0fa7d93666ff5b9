"""Files that are not what they should be. Nothing in them is run, whatever they are."""

import argparse
import json
import os
import pickle
import random
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from free import DiT
from tests.models.checkpoints.files import (
    Planted,
    original_state,
    save_original,
    training_checkpoint,
)

STATE = original_state()
PATCHES, OUTPUT = "x_embedder.proj.weight", "final_layer.linear.weight"
LABELS = "y_embedder.embedding_table.weight"


@pytest.mark.parametrize("place", ["instead", "as a weight", "in args", "as a key", "in opt"])
def test_planted_code_is_not_run(tmp_path: Path, place: str) -> None:
    mark, path = tmp_path / "it ran", tmp_path / "model.pt"
    planted = Planted(mark)
    checkpoint = training_checkpoint(STATE)
    content = {
        "instead": planted,
        "as a weight": {**STATE, "final_layer.linear.bias": planted},
        "in args": {**checkpoint, "args": planted},
        "as a key": {**STATE, (planted, 1): torch.zeros(1)},
        "in opt": {**checkpoint, "opt": [planted]},
    }[place]
    torch.save(content, path)
    with pytest.raises(ValueError, match=r"weights only, got .*model.pt, whose pickle asks for"):
        DiT.from_pretrained(path, heads=4)
    assert not mark.exists()
    torch.load(path, weights_only=False)  # it would have
    assert mark.exists()


def test_a_bare_pickle_is_not_opened(tmp_path: Path) -> None:
    mark, path = tmp_path / "it ran", tmp_path / "model.pt"
    path.write_bytes(pickle.dumps(Planted(mark)))
    with pytest.raises(ValueError, match="a bare pickle, which could run code and is not opened"):
        DiT.from_pretrained(path)
    assert not mark.exists()


def test_what_is_no_checkpoint(tmp_path) -> None:
    for name, content, message in (
        ("model.pt", b"", "an empty file"),
        ("model.pt", b"<!DOCTYPE html><html><body>404</body>", "an HTML page, probably of a down"),
        ("x.bin", b"version https://git-lfs.github.com/spec/v1\nsize 2", "git lfs pull"),
        ("model.safetensors", b'{"weights": 3}', r"something that starts with b'\{"),
        ("x.bin", np.random.default_rng(0).bytes(1000), "something that starts with"),
    ):
        path = tmp_path / name
        path.write_bytes(content)
        told = rf"source must be a checkpoint \(.*{name}: .*{message}"
        with pytest.raises(ValueError, match=told):
            DiT.from_pretrained(path)


@pytest.mark.parametrize("name", ["model.pt", "model.safetensors", "config.json"])
def test_a_pipe_is_not_waited_for(tmp_path: Path, name: str) -> None:
    os.mkfifo(tmp_path / name)
    for source in (tmp_path, tmp_path / name):
        with pytest.raises(ValueError, match=name.replace(".safetensors", "|config")):
            DiT.from_pretrained(source)


def test_other_zip_files(tmp_path: Path) -> None:
    np.savez(tmp_path / "samples.npz", np.zeros(3))
    with zipfile.ZipFile(tmp_path / "text.zip", "w") as archive:
        archive.writestr("readme", "hello")
    with zipfile.ZipFile(tmp_path / "script.pt", "w") as archive:
        for name in ("data.pkl", "constants.pkl", "code/__torch__.py"):
            archive.writestr(f"script/{name}", "")
    with pytest.raises(ValueError, match=r"got .*script.pt, a TorchScript program"):
        DiT.from_pretrained(tmp_path / "script.pt")
    for name in ("samples.npz", "text.zip"):
        with pytest.raises(ValueError, match=rf"source must be whole, got .*{name}"):
            DiT.from_pretrained(tmp_path / name)
    path = save_original(tmp_path)
    packed = zipfile.ZipFile(tmp_path / "packed.pt", "w", zipfile.ZIP_DEFLATED)
    with zipfile.ZipFile(path) as stored, packed:
        for member in stored.infolist():
            packed.writestr(member.filename, stored.read(member))
    DiT.from_pretrained(path, heads=4)
    with pytest.raises(ValueError, match=r"source must be stored as torch.save .* compressed"):
        DiT.from_pretrained(tmp_path / "packed.pt", heads=4)


@pytest.mark.parametrize("save", [torch.save, save_file])
def test_truncated_files(tmp_path: Path, save: object) -> None:
    path = tmp_path / "model"
    save(original_state(), path)
    content = path.read_bytes()
    for part in (0.001, 0.1, 0.5, 0.9, 0.9999):
        path.write_bytes(content[: int(len(content) * part)])
        with pytest.raises(ValueError, match=r"must be whole, got .*model, truncated or damaged"):
            DiT.from_pretrained(path, heads=4)


@pytest.mark.parametrize("save", [torch.save, save_file])
def test_damaged_files_never_do_worse_than_an_error(tmp_path: Path, save: object) -> None:
    """Bytes of the header, or of the pickle, that are not what they were."""
    path = tmp_path / "model"
    save({name: value for name, value in original_state().items() if value.dim() < 3}, path)
    content = path.read_bytes()
    end = 2000 if save is save_file else content.index(b"final_layer.linear.bias") + 500
    generator = random.Random(0)
    for _ in range(80):
        damaged = bytearray(content)
        for _ in range(generator.randint(1, 4)):
            damaged[generator.randrange(end)] = generator.randrange(256)
        path.write_bytes(bytes(damaged))
        with pytest.raises(ValueError, match="."):  # whole or not, it lacks the convolution
            DiT.from_pretrained(path, heads=4)


def _under(prefix: str) -> dict[str, torch.Tensor]:
    return {prefix + name: value for name, value in STATE.items()}


def test_other_contents(tmp_path) -> None:
    for content, message in (
        ([1, 2], "source must hold a dict of tensors, got .* with a list"),
        ({}, "source must hold a dict of tensors, got .* with a dict"),
        ({"weights": {}, "step": 3}, "such a dict as 'ema', 'state_.* got .* keys weights, step"),
        ({"model": {}, "step": 3}, "source must hold a dict of tensors, got .* with a dict"),
        ({"model": STATE, "net": STATE}, "tell which weights are meant, got .* with model, net:"),
        ({"ema": STATE, "ema_fast": STATE}, "which weights are meant, got .* with ema, ema_fast"),
        (_under("model.") | _under("old."), r"one network, got .* model\.\* and old\.\*: save"),
        (STATE | _under("module."), "hold each weight once, got .* with some of them twice"),
        (_under("model.") | {"loss.w": torch.zeros(3)}, "unexpected loss.w"),
        ({"conv.weight": torch.zeros(3)}, "must hold the weights of a DiT, got .* without x_emb"),
        ({"transformer_blocks.0.attn1.to_q.weight": torch.zeros(3, 3)}, "without x_embedder"),
        (STATE | {PATCHES: torch.zeros(32, 12)}, r"must have 4 axes, got \[32, 12\]"),
        (STATE | {OUTPUT: torch.zeros(30, 32)}, "must have 1 or 2 rows for each of the"),
        (STATE | {LABELS: torch.zeros(1, 32)}, "num_classes must be given for .* of one row"),
        (
            {"model": STATE, "args": argparse.Namespace(num_classes=9)},
            "must be 5 and a null class, or 6 without one, .* got 9",
        ),
        (
            {"model": STATE, "args": argparse.Namespace(num_classes="five")},
            "args.num_classes of .*model.pt must be an integer in .* got 'five'",
        ),
        (
            STATE | {f"blocks.{i}.x": torch.zeros(1) for i in range(3, 2000)},
            r"depth must be an integer in 1\.\.1000, got 2000",
        ),
        (STATE | {"pos_embed": torch.zeros(1, 15, 32)}, "must be of a square, got"),
        (STATE | {"pos_embed": torch.zeros(1).expand(1, 16, 32)}, "repeated by strides"),
        (STATE | {"pos_embed": torch.zeros(1, 16, 32).to_sparse()}, "dense, got pos_embed"),
    ):
        torch.save(content, tmp_path / "model.pt")
        with pytest.raises(ValueError, match=message):
            DiT.from_pretrained(tmp_path / "model.pt", heads=4)


def test_weights_that_do_not_fit_are_listed(tmp_path: Path) -> None:
    state = original_state()
    del state["blocks.1.attn.qkv.bias"]
    state["blocks.0.attn.gate.weight"] = torch.zeros(8)
    state["t_embedder.mlp.0.bias"] = torch.zeros(31)
    state["final_layer.linear.bias"] = torch.zeros(24, dtype=torch.int64)
    torch.save(state, tmp_path / "model.pt")
    message = (
        "do not fit the architecture: missing blocks.1.attn.qkv.bias; "
        "unexpected blocks.0.attn.gate.weight; "
        r"t_embedder.mlp.0.bias has shape \[31\], expected \[32\]; "
        "final_layer.linear.bias holds torch.int64, expected floating-point values"
    )
    with pytest.raises(ValueError, match=message):
        DiT.from_pretrained(tmp_path / "model.pt", heads=4)


def test_folders_that_hold_none(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="must be a folder with config.json, teacher/, trans"):
        DiT.from_pretrained(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "bert"}))
    with pytest.raises(ValueError, match=r"config.json is missing or malformed: KeyError\('kind'"):
        DiT.from_pretrained(tmp_path)
    with pytest.raises(ValueError, match="hub id .*, or one of mnist, emoji, got 'nowhere'"):
        DiT.from_pretrained("nowhere")
    with pytest.raises(ValueError, match="got .*/nowhere/x.pt', which does not exist"):
        DiT.from_pretrained(tmp_path / "nowhere" / "x.pt")
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(ValueError, match="loop"):
        DiT.from_pretrained(tmp_path / "loop")


def test_a_changed_file_does_not_change_the_network(tmp_path: Path) -> None:
    """Weights are copies, not views of the file."""
    path = save_original(tmp_path)
    network = DiT.from_pretrained(path, heads=4)
    before = network.final_layer.linear.weight.clone()
    with path.open("rb+") as file:
        file.truncate(100)
    assert torch.equal(network.final_layer.linear.weight, before)
