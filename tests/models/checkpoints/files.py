"""Checkpoints as others write them."""

import argparse
import json
import math
import os
import shutil
from fnmatch import fnmatch
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from free import DiT, DiTConfig

#: A small DiT with learned variance, three channels and no published width.
CONFIG = DiTConfig(8, 2, 3, 32, 3, 4, num_classes=5)


def original_state(config: DiTConfig = CONFIG, seed: int = 0) -> dict[str, Tensor]:
    """A state dict of the original code, with random non-zero weights; the names are ours."""
    with torch.device("meta"):
        own = DiT(config).state_dict()
    generator = torch.Generator().manual_seed(seed)
    state = {
        name: torch.randn(value.shape, generator=generator) / math.sqrt(value.shape[-1])
        for name, value in own.items()
    }
    table = position_table(config.image_size // config.patch_size, config.hidden_size)
    return {**state, "pos_embed": table}


def position_table(grid: int, hidden: int) -> Tensor:
    """The fixed table, [1, grid * grid, hidden]: of the column, then of the row."""
    omega = 1 / 10000 ** (np.arange(hidden // 4) / (hidden // 4))
    rows = [
        np.concatenate([f(place * omega) for place in (column, row) for f in (np.sin, np.cos)])
        for row in range(grid)
        for column in range(grid)
    ]
    return torch.from_numpy(np.stack(rows)[None]).float()


def training_checkpoint(state: dict[str, Tensor]) -> dict[str, object]:
    """What the original's training script writes; ``state`` is the averaged one."""
    weights = [torch.nn.Parameter(torch.zeros(2))]
    return {
        "model": {name: torch.zeros_like(value) for name, value in state.items()},
        "ema": state,
        "opt": torch.optim.AdamW(weights).state_dict(),
        "args": argparse.Namespace(
            data_path="/home/someone/images", model="DiT-S/2", global_batch_size=256, epochs=1400
        ),
    }


def outputs(network: torch.nn.Module, t: int = 300) -> Tensor:
    """Eps and variance of two fixed inputs."""
    generator = torch.Generator().manual_seed(7)
    x = torch.randn((2, *network.sample_shape), generator=generator)
    y = torch.tensor([1, network.null_label])
    out = network(x.to(network.pos_embed.device), torch.tensor([t, t]), y)
    return torch.cat([out.eps, out.variance], dim=1)


def same_weights(one: torch.nn.Module, two: torch.nn.Module) -> bool:
    """Whether all stored values are the same, bit for bit."""
    first, second = one.state_dict(), two.state_dict()
    return first.keys() == second.keys() and all(
        value.dtype == second[name].dtype and torch.equal(value, second[name])
        for name, value in first.items()
    )


def save_original(folder: Path, name: str = "model.pt") -> Path:
    """A file of the original's state dict."""
    path = folder / name
    torch.save(original_state(), path)
    return path


def change(path: Path, **fields: object) -> None:
    """Put fields into a JSON file; None takes one away."""
    record = json.loads(path.read_text()) | fields
    path.write_text(json.dumps({key: value for key, value in record.items() if value is not None}))


def fake_hub(monkeypatch: pytest.MonkeyPatch, there: Path) -> list[str]:
    """A hub whose repository ``someone/model`` is a folder: what is asked for is copied to
    ``cache`` beside it, as the hub's client does, and listed.
    """
    cache, fetched = there.parent / "cache", []

    def snapshot_download(name: str, allow_patterns: list[str]) -> str:
        assert name == "someone/model"
        for path in (file.relative_to(there) for file in there.rglob("*") if file.is_file()):
            if any(fnmatch(str(path), pattern) for pattern in allow_patterns):
                (cache / path).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(there / path, cache / path)
                fetched.append(str(path))
        return str(cache)

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot_download)
    return fetched


class Planted:
    """Pickles as a call that leaves a mark, a folder."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple:
        return os.mkdir, (str(self.mark),)
