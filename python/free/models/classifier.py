"""A small convolutional network that names images: what generated ones are judged by."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from free.files import read_json

_ASSETS = Path(__file__).resolve().parent.parent / "assets"


class Classifier(nn.Module):
    """Two convolutions and two linear layers.

    Images are [R, channels, side, side], ``side`` a multiple of 4. ``record`` says how it was
    trained and how often it is right; empty if it was not trained.
    """

    def __init__(self, channels: int, side: int, classes: int) -> None:
        super().__init__()
        self.shape = (side, side, channels)
        self.classes = classes
        self.conv1 = nn.Conv2d(channels, 24, 5, padding=2, dtype=torch.float32)
        self.conv2 = nn.Conv2d(24, 48, 5, padding=2, dtype=torch.float32)
        self.hidden = nn.Linear(48 * (side // 4) ** 2, 128, dtype=torch.float32)
        self.output = nn.Linear(128, classes, dtype=torch.float32)
        self.pool, self.dropout = nn.MaxPool2d(2), nn.Dropout(0.4)
        self.record: dict[str, Any] = {}

    @classmethod
    def embedded(cls, model: str) -> Classifier:
        """The one of an embedded model, "mnist" or "emoji", in float32, for evaluation."""
        folder = _ASSETS / model / "classifier"
        record = read_json(folder / "config.json", "classifier")
        with torch.device("cpu"):  # whatever the default is
            channels, side, classes = record["shape"]
            network = cls(channels, side, classes)
        network.load_state_dict(load_file(folder / "model.safetensors"))
        network.record = record
        return network.eval().requires_grad_(False)

    def features(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """What the last layer reads, [R, 128], and where it comes from, [R, 48, side/4, side/4].

        Images are float32 in [-1, 1].
        """
        maps = self.pool(torch.relu(self.conv1(images)))
        maps = self.pool(torch.relu(self.conv2(maps)))
        return torch.relu(self.hidden(self.dropout(maps.flatten(1)))), maps

    def forward(self, images: Tensor) -> Tensor:
        """Logits [R, classes] of images in [-1, 1]."""
        hidden, _ = self.features(images)
        return self.output(hidden)
