"""Loading what a command samples with."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch

from free.cli.options import parse_device, parse_dtype
from free.cli.records import ModelOptions
from free.drafters import FeatureDrafter, FrozenDrafter
from free.images.autoencoder import LatentCoder, PixelCoder, load_autoencoder, own_vae
from free.images.labels import imagenet_names, label_table
from free.images.picture import check_drawable
from free.models.dit import DiT
from free.pretrained import load_pretrained

__all__ = ["Models", "class_names", "load_models"]


class Models(NamedTuple):
    """A teacher and what belongs to it.

    Attributes
    ----------
    teacher : DiT
    drafter : FeatureDrafter or FrozenDrafter
    coder : LatentCoder or PixelCoder
        Makes images of its samples.
    """

    teacher: DiT
    drafter: FeatureDrafter | FrozenDrafter
    coder: LatentCoder | PixelCoder

    @property
    def image_shape(self) -> tuple[int, ...]:
        """(H, W, C) of its images."""
        return self.coder.image_shape(self.teacher.sample_shape)


def load_models(options: ModelOptions, engine: str = "torch") -> Models:
    """Load what the options name.

    Parameters
    ----------
    options : ModelOptions
    engine : str
        Other engines than torch are given float32, as their graphs have a precision of their own.

    Raises
    ------
    ValueError
        If something is missing, damaged or does not fit; and if the samples are latents and there
        is no VAE.
    ImportError
        If an extra is missing; names it.
    """
    dtype = parse_dtype(options.dtype)
    if engine != "torch":
        dtype = torch.float32
    device = parse_device(options.device)
    teacher, drafter = load_pretrained(
        options.model,
        None if options.drafter == "trained" else options.drafter,
        device=device,
        dtype=dtype,
        constants=options.constants,
    )
    vae = own_vae(options.model) if options.vae is None else options.vae
    if vae is None:
        try:
            check_drawable(teacher.sample_shape)
        except ValueError as error:
            shape = " x ".join(map(str, teacher.sample_shape))
            raise ValueError(
                f"--vae must be given for a model of latents ({shape}), such as "
                "--vae stabilityai/sd-vae-ft-ema, got none"
            ) from error
    coder = load_autoencoder(vae, device, dtype)
    coder.require_fit(teacher.sample_shape)
    return Models(teacher, drafter, coder)


def class_names(teacher: Any) -> Mapping[str, int]:
    """Classes by name: ImageNet's for a model of 1000 classes, none for others."""
    return label_table(imagenet_names()) if teacher.num_classes == 1000 else {}
