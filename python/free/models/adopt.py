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
from free.models.checkpoints.positions import fixed_table
from free.models.checkpoints.reading import check_keys
from free.models.checkpoints.tensors import StoredTensor
from free.models.dit import DiT

__all__ = ["adopt_transformer"]


def adopt_transformer(transformer: nn.Module, constants: str | None = None) -> DiT:
    """Our DiT with the weights of a ``diffusers.DiTTransformer2DModel``.

    Parameters
    ----------
    transformer : diffusers.DiTTransformer2DModel
        All its weights stay shared, but for those of the attention's three projections, a sixth of
        the whole, which are one here, and the copies of the conditioning in every block.
    constants : {"original", "diffusers"}, optional
        As for :meth:`free.DiT.from_pretrained`.

    Returns
    -------
    DiT
        On the same device and in the same precision, in evaluation mode, without gradients.

    Raises
    ------
    ValueError
        If it is another model, its weights do not fit its configuration, or copies do not agree.
    """
    name = type(transformer).__name__
    if name not in DIFFUSERS_CLASSES:
        raise ValueError(f"transformer must be a DiTTransformer2DModel, got {name}")
    label = Path(name)
    record = {**transformer.config, "_class_name": name}  # type: ignore[dict-item]
    config = with_constants(config_from_diffusers(record, label), constants, "diffusers")
    with torch.device("meta"):
        dit = DiT(config)
    own = dit.state_dict()
    found = {key: diffusers_layout(key, config.depth) for key in own}
    weights: dict[str, Tensor] = transformer.state_dict()
    stored = {
        key: StoredTensor(tuple(value.shape), value.dtype, value.clone)
        for key, value in weights.items()
    }
    check_keys(found, own, stored, label)
    state = {}
    for key, (parts, copies) in found.items():
        for copy in copies:
            if not torch.equal(weights[copy], weights[parts[0]]):
                raise ValueError(
                    f"copies of {key} in {name} must agree, got {copy} unlike {parts[0]}"
                )
        if parts:
            pieces = [weights[part] for part in parts]
            state[key] = pieces[0] if len(pieces) == 1 else torch.cat(pieces)
    state["pos_embed"] = fixed_table(config).to(state["x_embedder.proj.weight"])
    dit.load_state_dict(state, assign=True)
    dit.t_embedder.reset_frequencies(state["pos_embed"].device)
    return dit.eval().requires_grad_(False)
