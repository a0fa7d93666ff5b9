"""The position table: fixed, so that some formats leave it out and others store it."""

from __future__ import annotations

import torch
from torch import Tensor

from free.models.config import DiTConfig
from free.models.layers import sincos_position_embedding

_LAST_DIGITS = 2.0**-22  # of a float32 table: sines differ in the last digit among libraries


def fixed_table(config: DiTConfig) -> Tensor:
    """The sine-cosine table of a network, [1, T, E], float32."""
    grid = config.image_size // config.patch_size
    return sincos_position_embedding(grid, config.hidden_size)


def is_fixed(table: Tensor, config: DiTConfig) -> bool:
    """Whether ``table`` is the fixed one, or was before it was rounded to 16 bits."""
    fixed = fixed_table(config)
    return any(
        torch.allclose(table.float().cpu(), fixed.to(dtype).float(), rtol=0, atol=_LAST_DIGITS)
        for dtype in (torch.float32, torch.float16, torch.bfloat16)
    )
