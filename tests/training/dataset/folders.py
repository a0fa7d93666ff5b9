"""Folders of images, and a teacher for them."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from PIL import Image


def teacher(side: int = 16, channels: int = 3, classes: int = 3) -> Any:
    """What of a teacher its images must fit."""
    return SimpleNamespace(sample_shape=(channels, side, side), num_classes=classes)


def picture(width: int, height: int, seed: int = 0, mode: str = "RGB") -> Image.Image:
    """Smooth colours that no two seeds share."""
    random = np.random.default_rng(seed)
    coarse = random.integers(0, 256, (4, 4, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC).convert(mode)


def class_folders(root: Path, classes: int = 3, each: int = 4, size: int = 20) -> Path:
    """``root/c0/0.jpeg`` and so on; each class has each of the suffixes."""
    suffixes = ("jpeg", "jpg", "png", "webp")
    for c in range(classes):
        (root / f"c{c}").mkdir(parents=True)
        for i in range(each):
            path = root / f"c{c}" / f"{i}.{suffixes[i % 4]}"
            picture(size + i, size + 3, seed=100 * c + i).save(path)
    return root


def labelled(root: Path, labels: dict[str, int]) -> Path:
    """A folder of PNGs with ``labels.json``."""
    root.mkdir(exist_ok=True)
    for i, name in enumerate(labels):
        picture(20, 20, seed=i).save(root / name)
    (root / "labels.json").write_text(json.dumps(labels))
    return root
