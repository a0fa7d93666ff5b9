"""Loading what a command samples with."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch

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


def load_models(
    model: str,
    drafter: str,
    vae: str | None,
    constants: str | None,
    dtype: torch.dtype,
    device: torch.device,
) -> Models:
    """Load what the options name.

    Raises
    ------
    ValueError
        If something is missing, damaged or does not fit; and if the samples are latents and there
        is no VAE.
    ImportError
        If an extra is missing; names it.
    """
    teacher, loaded = load_pretrained(
        model,
        None if drafter == "trained" else drafter,
        device=device,
        dtype=dtype,
        constants=constants,
    )
    source = own_vae(model) if vae is None else vae
    if source is None:
        try:
            check_drawable(teacher.sample_shape)
        except ValueError as error:
            shape = " x ".join(map(str, teacher.sample_shape))
            raise ValueError(
                f"--vae must be given for a model of latents ({shape}), such as "
                "--vae stabilityai/sd-vae-ft-ema, got none"
            ) from error
    coder = load_autoencoder(source, device, dtype)
    coder.require_fit(teacher.sample_shape)
    return Models(teacher, loaded, coder)


def class_names(teacher: Any) -> Mapping[str, int]:
    """Classes by name: ImageNet's for a model of 1000 classes, none for others."""
    return label_table(imagenet_names()) if teacher.num_classes == 1000 else {}
