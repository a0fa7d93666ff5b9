"""The colour images of the package: packed and read back."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from free.images import emoji


def test_what_is_packed_is_read_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    values = np.random.default_rng(0).integers(0, 256, (50, 32, 32, 3), dtype=np.uint8)
    names = ["b"] * 1 + ["a"] * 49  # more than a row of the picture holds
    for number, (name, pixels) in enumerate(zip(names, values, strict=True)):
        (tmp_path / "from" / name).mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(tmp_path / "from" / name / f"{number:02d}.png")
    emoji.pack_emoji(tmp_path / "from", tmp_path / "to")
    monkeypatch.setattr(emoji, "_EMBEDDED", tmp_path / "to")
    emoji.emoji_classes.cache_clear()
    images, labels = emoji.load_emoji.__wrapped__()
    assert emoji.emoji_classes() == {"a": 49, "b": 1}
    emoji.emoji_classes.cache_clear()
    assert labels.tolist() == [0] * 49 + [1]
    back = ((images + 1) * 127.5).round().permute(0, 2, 3, 1).to(torch.uint8).numpy()
    assert np.array_equal(back, np.concatenate([values[1:], values[:1]]))


def test_the_embedded_glyphs() -> None:
    images, labels = emoji.load_emoji()
    assert images.shape == (1871, 3, 32, 32)
    assert (images.min(), images.max()) == (-1.0, 1.0)
    assert labels.bincount().tolist() == list(emoji.emoji_classes().values())
    # A yellow face: its middle is yellow, its corners are white.
    face = images[labels == list(emoji.emoji_classes()).index("face-smiling")][0]
    assert torch.equal(face[:, 0, 0], torch.ones(3))
    red, green, blue = face[:, 14, 8]
    assert red > 0.8
    assert green > 0.3
    assert blue < -0.2
