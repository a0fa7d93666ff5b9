"""Two denoisers of an action chunk, conditioned on the last observations.

``network(x [R, horizon, actions], t [R], observations [R, history, numbers])`` is the predicted
noise, ``[R, horizon, actions]``. Rows do not depend on each other.
"""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional as F

from examples.policy.expert import ACTION, OBSERVATION


@dataclasses.dataclass(frozen=True)
class PolicyConfig:
    """Sizes of a denoiser, and of what it is used for.

    Parameters
    ----------
    kind : {"mlp", "transformer"}
    width, depth : int
        Numbers of a layer or a token; hidden layers or blocks.
    heads : int
        Of the transformer's attention.
    horizon, actions : int
        Steps of a chunk, and numbers of an action.
    execute : int
        Steps of a chunk that are flown before the next one is asked for.
    history, numbers : int
        Observations that are looked at, and numbers of one.
    steps : int
        Noise levels of the training, and of the longest sampler.
    """

    kind: str
    width: int
    depth: int
    heads: int = 4
    horizon: int = 16
    actions: int = ACTION
    execute: int = 8
    history: int = 2
    numbers: int = OBSERVATION
    steps: int = 100

    def __post_init__(self) -> None:
        if self.kind not in NETWORKS:
            raise ValueError(f"kind must be one of {', '.join(NETWORKS)}, got {self.kind!r}")
        if not 1 <= self.execute <= self.horizon:
            raise ValueError(
                f"execute must be in 1..{self.horizon}, the horizon, got {self.execute}"
            )


class Denoiser(nn.Module):
    """What both have in common: the normalisation of observations, and the time's embedding."""

    def __init__(self, config: PolicyConfig) -> None:
        super().__init__()
        self.config = config
        self.register_buffer("mean", torch.zeros(config.numbers))
        self.register_buffer("spread", torch.ones(config.numbers))
        frequencies = torch.exp(-math.log(1e4) * torch.arange(32) / 32)
        self.register_buffer("frequencies", frequencies, persistent=False)
        self.time = nn.Sequential(nn.Linear(64, 128), nn.SiLU(), nn.Linear(128, config.width))

    def normalise(self, observations: Tensor) -> None:
        """Take mean and spread from observations, [..., numbers]."""
        flat = observations.flatten(0, -2)
        self.mean.copy_(flat.mean(0))
        self.spread.copy_(flat.std(0).clamp(min=1e-2))

    def embed(self, t: Tensor, observations: Tensor) -> tuple[Tensor, Tensor]:
        """Embedded times [R, width], and normalised observations [R, history, numbers]."""
        angles = t.float()[:, None] * self.frequencies
        times = self.time(torch.cat([angles.cos(), angles.sin()], dim=1))
        return times, (observations - self.mean) / self.spread


class MLPDenoiser(Denoiser):
    """Hidden layers over all numbers at once, as in Diffusion-QL and IDQL."""

    def __init__(self, config: PolicyConfig) -> None:
        super().__init__(config)
        chunk = config.horizon * config.actions
        self.first = nn.Linear(chunk + config.history * config.numbers, config.width)
        self.hidden = nn.ModuleList(
            nn.Linear(config.width, config.width) for _ in range(config.depth - 1)
        )
        self.last = nn.Linear(config.width, chunk)

    def forward(self, x: Tensor, t: Tensor, observations: Tensor) -> Tensor:
        """Predict the noise in ``x``."""
        times, seen = self.embed(t, observations)
        h = F.silu(self.first(torch.cat([x.flatten(1), seen.flatten(1)], dim=1)) + times)
        for layer in self.hidden:
            h = F.silu(layer(h))
        return self.last(h).view(x.shape)


class Block(nn.Module):
    """A block of a transformer, normalised before each part."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        self.mlp = nn.Sequential(
            nn.Linear(width, 4 * width), nn.GELU(approximate="tanh"), nn.Linear(4 * width, width)
        )

    def forward(self, h: Tensor) -> Tensor:
        """Tokens [R, T, width] to tokens."""
        split = self.qkv(self.norm1(h)).unflatten(2, (3, self.heads, -1))
        q, k, v = split.permute(2, 0, 3, 1, 4)
        h = h + self.out(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))
        return h + self.mlp(self.norm2(h))


class TransformerDenoiser(Denoiser):
    """A token for each action, behind those of the time and of each observation."""

    def __init__(self, config: PolicyConfig) -> None:
        super().__init__(config)
        width, self.context = config.width, 1 + config.history
        self.observed = nn.Linear(config.numbers, width)
        self.acted = nn.Linear(config.actions, width)
        self.places = nn.Parameter(0.02 * torch.randn(self.context + config.horizon, width))
        self.blocks = nn.ModuleList(Block(width, config.heads) for _ in range(config.depth))
        self.norm = nn.LayerNorm(width)
        self.last = nn.Linear(width, config.actions)

    def forward(self, x: Tensor, t: Tensor, observations: Tensor) -> Tensor:
        """Predict the noise in ``x``."""
        times, seen = self.embed(t, observations)
        h = torch.cat([times[:, None], self.observed(seen), self.acted(x)], dim=1) + self.places
        for block in self.blocks:
            h = block(h)
        return self.last(self.norm(h[:, self.context :]))


NETWORKS: dict[str, type[Denoiser]] = {"mlp": MLPDenoiser, "transformer": TransformerDenoiser}


def build(config: PolicyConfig) -> Denoiser:
    """An untrained network."""
    return NETWORKS[config.kind](config)


def save(network: Denoiser, path: Path, **notes: Any) -> None:
    """Write weights and configuration to one file; ``notes`` are JSON values that are kept."""
    record = {"config": json.dumps(dataclasses.asdict(network.config)), "notes": json.dumps(notes)}
    save_file(network.state_dict(), path, record)


def load(path: Path) -> Denoiser:
    """The network of a file, ready to be asked.

    Raises
    ------
    ValueError
        If there is no such file, or it is not one that :func:`save` has written.
    """
    if not path.is_file():
        raise ValueError(
            f"network must be a file, got {path}: python -m examples.policy.train writes it"
        )
    with safe_open(path, "pt") as file:
        record = file.metadata() or {}
        state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    if "config" not in record:
        raise ValueError(f"network must be a policy's file with its config, got {path}")
    network = build(PolicyConfig(**json.loads(record["config"])))
    network.load_state_dict(state)
    return network.eval().requires_grad_(False)
