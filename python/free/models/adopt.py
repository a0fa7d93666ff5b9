"""From a network of diffusers in memory to ours, sharing what has the same shape in both."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from free.models.checkpoints.configs import (
    DIFFUSERS_CLASSES,
    config_from_diffusers,
    with_constants,
)
from free.models.checkpoints.layout import diffusers_layout
from free.models.checkpoints.reading import build
from free.models.checkpoints.source import Source
from free.models.checkpoints.tensors import StoredTensor
from free.models.dit import DiT
from free.models.wrappers import plain_state, unwrap


def adopt_transformer(transformer: nn.Module, constants: str | None = None) -> DiT:
    """Our DiT with the weights of a ``diffusers.DiTTransformer2DModel``.

    On the same device and in the same precision, in evaluation mode, without gradients. All weights
    stay shared, but for those of the attention's three projections, a sixth of the whole, which are
    one here, and the copies of the conditioning in every block, where they agree. What
    torch.compile made of it is not taken over. For ``constants`` see
    :meth:`free.DiT.from_pretrained`.

    Raises ValueError if it is another model, is quantised, or its weights do not fit its
    configuration.
    """
    transformer = unwrap(transformer)
    name = type(transformer).__name__
    if name not in DIFFUSERS_CLASSES:
        raise ValueError(f"transformer must be a DiTTransformer2DModel, got {name}")
    record = {**transformer.config, "_class_name": name}  # type: ignore[dict-item]
    config = with_constants(config_from_diffusers(record, Path(name)), constants, "diffusers")
    weights = plain_state(transformer, "transformer")
    source = Source(
        path=Path(name),
        format="diffusers",
        kind="teacher",
        config=config,
        tensors={key: _in_memory(value) for key, value in weights.items()},
        layout=diffusers_layout,
    )
    return build(DiT, source, _shared)


def is_transformer(network: object) -> bool:
    """Whether :func:`adopt_transformer` knows a network's class."""
    return isinstance(network, nn.Module) and type(unwrap(network)).__name__ in DIFFUSERS_CLASSES


def _in_memory(value: Tensor) -> StoredTensor:
    return StoredTensor(tuple(value.shape), value.dtype, lambda: value, mapped=False)


def _shared(parts: list[StoredTensor], shape: torch.Size) -> Tensor:
    first, *others = (part.view() for part in parts)
    return torch.cat([first, *others]) if others else first
