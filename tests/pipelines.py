"""Small parts of pipelines, with weights that are not zero."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from free import DiT, DiTConfig
from tests.networks import randomized

#: Latents of 4 channels, 8 x 8, of which the tiny VAE makes pictures of 64 x 64.
CONFIG = DiTConfig(
    image_size=8, patch_size=2, channels=4, hidden_size=32, depth=2, heads=2, num_classes=1000
)


def tiny_vae(**config: Any) -> Any:
    """A random ``AutoencoderKL``: 3 channels, 8 times down, 4 latent channels."""
    diffusers = pytest.importorskip("diffusers")
    torch.manual_seed(3)
    options = {
        "down_block_types": ("DownEncoderBlock2D",) * 4,
        "up_block_types": ("UpDecoderBlock2D",) * 4,
        "block_out_channels": (4, 4, 8, 8),
        "layers_per_block": 1,
        "norm_num_groups": 4,
        "latent_channels": 4,
        **config,
    }
    return diffusers.AutoencoderKL(**options).eval().requires_grad_(False)


def tiny_dit(config: DiTConfig = CONFIG, seed: int = 0) -> DiT:
    """A random DiT of the given shape."""
    return randomized(DiT(config), seed)
