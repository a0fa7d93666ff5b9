"""Small parts of pipelines, with weights that are not zero."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch

from free import DiT, DiTConfig
from tests.networks import randomized

if TYPE_CHECKING:  # it needs diffusers
    from free import FreePipeline

#: Latents of 4 channels, 8 x 8, of which the tiny VAE makes pictures of 64 x 64; the constants are
#: those of diffusers, which it cannot be talked out of.
CONFIG = DiTConfig(8, 2, 4, 32, 2, 2, timestep_divisor=127, norm_eps=1e-5)
LABELS = [3, 207]
#: The scheduler that ``facebook/DiT-XL-2-256`` comes with.
DDIM = {
    "_class_name": "DDIMScheduler",
    "_diffusers_version": "0.12.0.dev0",
    "beta_end": 0.02,
    "beta_schedule": "linear",
    "beta_start": 0.0001,
    "clip_sample": False,
    "num_train_timesteps": 1000,
    "prediction_type": "epsilon",
    "set_alpha_to_one": True,
    "steps_offset": 0,
    "trained_betas": None,
}


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


def tiny_dit() -> DiT:
    """A random DiT."""
    return randomized(DiT(CONFIG))


def tiny_dit_pipeline(folder: Path, scheduler: Any = None) -> Any:
    """``diffusers.DiTPipeline`` of the same networks; by default with DiT's own sampler."""
    diffusers = pytest.importorskip("diffusers")
    tiny_dit().save_pretrained(folder / "transformer", "diffusers")
    transformer = diffusers.DiTTransformer2DModel.from_pretrained(
        folder / "transformer", low_cpu_mem_usage=False
    )
    scheduler = scheduler or diffusers.DDPMScheduler(clip_sample=False, timestep_spacing="linspace")
    names = {0: "tench, Tinca tinca", 1: "goldfish", 999: "toilet tissue"}
    pipe = diffusers.DiTPipeline(transformer, tiny_vae(), scheduler, names)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def pipeline(**options: Any) -> FreePipeline:
    """A pipeline of the two, without a progress bar."""
    from free import FreePipeline

    pipe = FreePipeline(tiny_dit(), tiny_vae(), **options)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def generator(seed: int = 1) -> torch.Generator:
    """A generator with this seed."""
    return torch.Generator().manual_seed(seed)


def latents(pipe: FreePipeline, labels: Any = LABELS, **options: Any) -> Any:
    """What the pipeline returns for these labels, as latents; 6 steps unless told otherwise."""
    options = {"num_inference_steps": 6, "generator": generator(), **options}
    return pipe(labels, output_type="latent", **options)
