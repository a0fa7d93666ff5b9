"""Checkpoints as others write them, made by hand."""

import argparse
import math
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from free import DiTConfig

#: A small DiT with learned variance, three channels and no published width.
CONFIG = DiTConfig(8, 2, 3, 32, 3, 4, num_classes=5)


def original_state(config: DiTConfig = CONFIG, seed: int = 0) -> dict[str, Tensor]:
    """A state dict of the original code, with random non-zero weights."""
    hidden, patch = config.hidden_size, config.patch_size
    inner = int(config.mlp_ratio * hidden)
    shapes: dict[str, tuple[int, ...]] = {
        "x_embedder.proj": (hidden, config.channels, patch, patch),
        "t_embedder.mlp.0": (hidden, 256),
        "t_embedder.mlp.2": (hidden, hidden),
    }
    for block in range(config.depth):
        shapes |= {
            f"blocks.{block}.attn.qkv": (3 * hidden, hidden),
            f"blocks.{block}.attn.proj": (hidden, hidden),
            f"blocks.{block}.mlp.fc1": (inner, hidden),
            f"blocks.{block}.mlp.fc2": (hidden, inner),
            f"blocks.{block}.adaLN_modulation.1": (6 * hidden, hidden),
        }
    outputs = patch * patch * config.channels * (2 if config.learn_sigma else 1)
    shapes |= {
        "final_layer.linear": (outputs, hidden),
        "final_layer.adaLN_modulation.1": (2 * hidden, hidden),
    }
    generator = torch.Generator().manual_seed(seed)

    def random(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator) / math.sqrt(shape[-1])

    state = {"pos_embed": position_table(config.image_size // patch, hidden)}
    for name, shape in shapes.items():
        state[f"{name}.weight"] = random(*shape)
        state[f"{name}.bias"] = random(shape[0])
    state["y_embedder.embedding_table.weight"] = random(config.num_classes + 1, hidden)
    return state


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
