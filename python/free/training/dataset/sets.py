"""What training needs of a set of images; sets in memory."""

from __future__ import annotations

import functools
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor

from free.images.emoji import emoji_classes
from free.images.real import REAL_IMAGES
from free.training.dataset.order import images_at

#: A file that is not used, as ``{"file": ..., "reason": ...}``.
Skipped = dict[str, str]


class TrainingImages(Protocol):
    """Images in the order of training, as the teacher sees them.

    Attributes
    ----------
    num_classes : int
    sample_shape : tuple of int
        (C, H, W) of what :meth:`batch` returns; latents where there is a VAE.
    record : dict
        What was trained on, as JSON values: for the record of the run, and to be compared when
        one is resumed.
    skipped : list of dict
        Files found unusable up to now, in the order of the files, each with ``file`` and
        ``reason``. A process knows of those that its own rows met.
    """

    @property
    def num_classes(self) -> int: ...  # noqa: D102

    @property
    def sample_shape(self) -> tuple[int, int, int]: ...  # noqa: D102

    @property
    def record(self) -> dict[str, Any]: ...  # noqa: D102

    @property
    def skipped(self) -> list[Skipped]: ...  # noqa: D102

    def __len__(self) -> int:
        """Images of an epoch."""
        ...

    def batch(
        self,
        seed: int,
        step: int,
        rows: range,
        batch_size: int,
        device: torch.device | str = "cpu",
    ) -> tuple[Tensor, Tensor]:
        """Images x0 [R, C, H, W] float32 and labels [R] int64 of some rows of a step.

        Both are functions of the arguments alone, which are those of
        :func:`free.training.dataset.order.images_at`; the seed is also that of what is drawn for
        each row.
        """
        ...


@dataclass(frozen=True)
class ImageSet:
    """Labelled images in memory: [n, C, H, W] float32 in [-1, 1], labels [n] int64."""

    images: Tensor
    labels: Tensor
    num_classes: int
    record: dict[str, Any] = field(default_factory=dict)

    @property
    def sample_shape(self) -> tuple[int, int, int]:
        """(C, H, W)."""
        channels, height, width = self.images.shape[1:]
        return channels, height, width

    @property
    def skipped(self) -> list[Skipped]:
        """None: they have been read."""
        return []

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
        """Images and labels; see :meth:`TrainingImages.batch`."""
        index = images_at(len(self), seed, step, rows, batch_size)
        return self.images[index].to(device), self.labels[index].to(device)


@functools.cache
def embedded_set(model: str) -> ImageSet:
    """What an embedded model was trained on, with what a run records of it."""
    images, labels = REAL_IMAGES[model]()
    record: dict[str, Any] = {"source": model, "images": len(images)}
    if model == "emoji":
        record["classes"] = list(emoji_classes())
    return ImageSet(images, labels, num_classes=int(labels.max()) + 1, record=record)
