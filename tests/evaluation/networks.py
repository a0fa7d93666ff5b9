"""Weights for feature networks that no one has trained, and inputs to compare them on."""

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from free.evaluation.features import Features


def seeded(network: nn.Module) -> nn.Module:
    """Weights that keep activations of order one: functions of the tensors' names and shapes."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, value in sorted(network.state_dict().items()):
            if name.endswith("num_batches_tracked"):
                continue
            if value.dim() > 1:
                scale = (2 / value[0].numel()) ** 0.5
                value.copy_(scale * torch.randn(value.shape, generator=generator))
            elif name.endswith(("running_var", "bn.weight")):
                value.copy_(0.5 + torch.rand(value.shape, generator=generator))
            else:
                value.copy_(0.2 * torch.randn(value.shape, generator=generator))
    return network


def noise(*shape: int) -> NDArray[np.uint8]:
    """Images of random bytes."""
    return np.random.default_rng(0).integers(0, 256, shape, np.uint8)


def projections(value: Tensor) -> list[float]:
    """Three numbers that change if values change, or change places."""
    flat = value.double().flatten()
    places = torch.arange(len(flat), dtype=torch.float64)
    return [float(flat.mean()), float(flat.std()), float((flat * places.cos()).mean())]


def saved(network: nn.Module, path: Path) -> Path:
    """Its weights in a file of torch's."""
    torch.save(network.state_dict(), path)
    return path


class Pixels:
    """Features that need no weights: the pixels themselves, of small images.

    ``bad`` is an image that comes out as NaN.
    """

    is_inception = False

    def __init__(
        self, dims: int = 16, name: str = "pixel", bad: int = -1, classes: int | None = None
    ) -> None:
        self.dims, self.name, self.bad, self.classes = dims, name, bad, classes
        self.seen = 0

    def __call__(self, images: NDArray[np.uint8]) -> Features:
        """Look at images."""
        pooled = torch.tensor(images).flatten(1)[:, : self.dims].float() / 255
        first, self.seen = self.seen, self.seen + len(images)
        if first <= self.bad < self.seen:
            pooled[self.bad - first, 0] = torch.nan
        return Features(pooled)
