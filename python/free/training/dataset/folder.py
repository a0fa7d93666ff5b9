"""Images of a folder, as a teacher sees them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from free.images.autoencoder import LatentCoder, PixelCoder
from free.training.dataset.decoder import Decoder
from free.training.dataset.sets import Skipped
from free.training.randomness import RowRandom, Stream


@dataclass(frozen=True, eq=False)
class FolderImages:
    """Images that are decoded, mirrored and encoded when they are asked for.

    Everything random is drawn for each row by :class:`RowRandom`. Labels [n] int64 are those of
    the decoder's files; ``sample_shape`` (C, H, W) is what the coder makes of an image. With
    ``flip``, half of the images are mirrored; latents are drawn from the VAE's posterior if
    ``sampled``, else they are its mean. ``left_out`` are files of the folder that were not tried.
    """

    decoder: Decoder
    labels: Tensor
    num_classes: int
    sample_shape: tuple[int, int, int]
    coder: PixelCoder | LatentCoder
    flip: bool
    sampled: bool
    record: dict[str, Any]
    left_out: Sequence[str] = ()

    @property
    def skipped(self) -> list[Skipped]:
        """Files found unusable up to now, in their order."""
        return self.decoder.skipped

    def __len__(self) -> int:
        """Number of images."""
        return len(self.labels)

    def batch(
        self,
        seed: int,
        step: int,
        rows: range,
        batch_size: int,
        device: torch.device | str = "cpu",
    ) -> tuple[Tensor, Tensor]:
        """Images and labels; see :meth:`free.training.dataset.sets.TrainingImages.batch`."""
        pixels, index = self.decoder.pixels(seed, step, rows, batch_size)
        random = RowRandom(seed, step, rows, device, Stream.DATA)
        levels = torch.from_numpy(pixels).to(device).permute(0, 3, 1, 2)  # a quarter of the floats
        if self.flip:
            mirrored = (random.uniform() < 0.5).view(-1, 1, 1, 1)
            levels = torch.where(mirrored, levels.flip(-1), levels)
        images = levels.contiguous().float().div_(127.5).sub_(1.0)
        noise = random.normal(self.sample_shape) if self.sampled else None
        latents = self.coder.encode(images, noise=noise)
        return latents.to(device), self.labels[index].to(device)
