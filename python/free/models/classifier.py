"""A small convolutional network that names digits: what generated ones are judged by."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from free.files import read_json

_EMBEDDED = Path(__file__).resolve().parent.parent / "assets" / "mnist" / "classifier"


class DigitClassifier(nn.Module):
    """Two convolutions and two linear layers for 28x28 digits.

    ``record`` says how it was trained, with ``held_out_accuracy``; empty if it was not.
    """

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 24, 5, padding=2, dtype=torch.float32)
        self.conv2 = nn.Conv2d(24, 48, 5, padding=2, dtype=torch.float32)
        self.hidden = nn.Linear(48 * 49, 128, dtype=torch.float32)
        self.output = nn.Linear(128, 10, dtype=torch.float32)
        self.pool, self.dropout = nn.MaxPool2d(2), nn.Dropout(0.4)
        self.record: dict[str, Any] = {}

    @classmethod
    def embedded(cls) -> DigitClassifier:
        """The trained one that the package carries, in float32, for evaluation."""
        with torch.device("cpu"):  # whatever the default is
            network = cls()
        network.load_state_dict(load_file(_EMBEDDED / "model.safetensors"))
        network.record = read_json(_EMBEDDED / "config.json", "classifier")
        return network.eval().requires_grad_(False)

    def features(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """What the last layer reads, [R, 128], and where it comes from, [R, 48, 7, 7].

        Images are [R, 1, 28, 28], float32 in [-1, 1].
        """
        maps = self.pool(torch.relu(self.conv1(images)))
        maps = self.pool(torch.relu(self.conv2(maps)))
        return torch.relu(self.hidden(self.dropout(maps.flatten(1)))), maps

    def forward(self, images: Tensor) -> Tensor:
        """Logits [R, 10] of images [R, 1, 28, 28] in [-1, 1]."""
        hidden, _ = self.features(images)
        return self.output(hidden)
