"""From a network to a checkpoint of any format."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from free.files import write_atomic, write_json
from free.models.checkpoints.card import write_card
from free.models.checkpoints.configs import Description, config_to_diffusers, config_to_own
from free.models.checkpoints.layout import block_embedders_layout, diffusers_layout
from free.models.checkpoints.positions import is_fixed
from free.models.checkpoints.source import ORIGINAL_FILE
from free.models.config import DiTConfig
from free.models.wrappers import plain_state

FORMATS = ("free", "original", "diffusers")
#: safetensors files say which framework wrote them; other loaders ask.
_METADATA = {"format": "pt"}


def is_original_file(path: Path) -> bool:
    """Whether a path names a file of the original's format, rather than a folder."""
    return path.suffix in (".pt", ".pth")


def write_network(
    network: nn.Module, folder: str | Path, about: Description, dtype: torch.dtype | None = None
) -> None:
    """Write a network in the format that ``about`` names; see the networks' ``save_pretrained``."""
    folder, form = Path(folder), about.format
    if form not in FORMATS:
        raise ValueError(f"format must be one of {', '.join(FORMATS)}, got {form!r}")
    if dtype is not None and not dtype.is_floating_point:
        raise ValueError(f"dtype must be a floating-point torch.dtype or None, got {dtype!r}")
    state = {
        name: value.to("cpu", dtype).contiguous() for name, value in plain_state(network).items()
    }
    if form == "original":
        if about.config.block_embedders:
            raise ValueError(
                "format 'original' must have one embedder for all blocks, got one for each"
            )
        path = folder if is_original_file(folder) else folder / ORIGINAL_FILE
        if (path.parent / "config.json").is_file() and not is_original_file(folder):
            raise ValueError(
                f"folder must have no config.json for format 'original', got {folder}: what lies "
                "there would be read instead"
            )
        write_atomic(path, lambda temporary: torch.save(state, temporary))
        return
    if is_original_file(folder) or folder.is_file():
        raise ValueError(f"folder must be one for format {form!r}, got the file {folder}")
    if form == "diffusers":
        record, weights = config_to_diffusers(about), "diffusion_pytorch_model.safetensors"
        state = _in_diffusers(about.config, state)
    else:
        record, weights = config_to_own(about), "model.safetensors"
    write_atomic(folder / weights, lambda path: save_file(state, path, _METADATA))
    write_json(folder / "config.json", record)
    write_card(folder, about)


def _in_diffusers(config: DiTConfig, state: dict[str, Tensor]) -> dict[str, Tensor]:
    """A state dict by diffusers' names."""
    if not is_fixed(state["pos_embed"], config):
        raise ValueError(
            "format 'diffusers' must have the fixed sine-cosine table, got another pos_embed"
        )
    tensors = {}
    layout = block_embedders_layout if config.block_embedders else diffusers_layout
    for name, value in state.items():
        parts, copies = layout(name, config.depth)
        for key, rows in zip(parts, value.chunk(max(1, len(parts))), strict=False):
            tensors[key] = rows.clone() if len(parts) > 1 else rows
        # safetensors does not let two names share memory.
        tensors |= {key: value.clone() for key in copies}
    return tensors
