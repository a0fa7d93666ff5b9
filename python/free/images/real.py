"""The images that the embedded models were trained on, by the models' names."""

from __future__ import annotations

from free.images.emoji import load_emoji
from free.images.mnist import load_mnist

#: Each reads images [n, C, H, W], float32 in [-1, 1], and labels [n] int64.
REAL_IMAGES = {"mnist": load_mnist, "emoji": load_emoji}
