"""The colour images that the package carries: glyphs of the Noto Color Emoji font.

They lie in one picture, row by row in the order of their classes, beside a list of the classes.
"""

from __future__ import annotations

import functools
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from free.files import read_json, write_atomic, write_json
from free.images.image_files import open_image

_EMBEDDED = Path(__file__).resolve().parents[1] / "assets" / "emoji" / "images"
_PICTURE, _CLASSES = "glyphs.png", "classes.json"
#: Side of an image, and how many stand in a row of the picture.
SIDE, _COLUMNS = 32, 48


@functools.cache
def emoji_classes() -> dict[str, int]:
    """Class names and how many images each has, in the order of the labels 0, 1, ..."""
    return dict(read_json(_EMBEDDED / _CLASSES, "classes"))


@functools.cache
def load_emoji() -> tuple[Tensor, Tensor]:
    """The images [n, 3, 32, 32], float32 in [-1, 1], and labels [n] int64.

    From the Noto Color Emoji font (SIL Open Font License 1.1), on white, reduced to 32 x 32; the
    classes are the subgroups of Unicode's list of emoji.
    """
    counts = emoji_classes()
    with open_image(_EMBEDDED / _PICTURE, ("PNG",)) as picture:
        pixels = torch.from_numpy(np.array(picture.convert("RGB")))
    tiles = pixels.unflatten(0, (-1, SIDE)).unflatten(2, (-1, SIDE)).transpose(1, 2).flatten(0, 1)
    images = tiles[: sum(counts.values())].permute(0, 3, 1, 2).float() / 127.5 - 1.0
    each = torch.tensor(list(counts.values()), dtype=torch.int64, device="cpu")
    return images.contiguous(), torch.arange(len(each), device="cpu").repeat_interleave(each)


def pack_emoji(folder: Path, out: Path) -> None:
    """Write the files that :func:`load_emoji` reads, from a folder with one folder a class."""
    classes = sorted(path.name for path in folder.iterdir() if path.is_dir())
    files = {name: sorted((folder / name).glob("*.png")) for name in classes}
    order = [file for name in classes for file in files[name]]
    rows = -(-len(order) // _COLUMNS)
    picture = Image.new("RGB", (_COLUMNS * SIDE, rows * SIDE), "white")
    for place, file in enumerate(order):
        with open_image(file, ("PNG",)) as image:
            picture.paste(image, (place % _COLUMNS * SIDE, place // _COLUMNS * SIDE))
    write_atomic(out / _PICTURE, lambda path: picture.save(path, "PNG", optimize=True))
    write_json(out / _CLASSES, {name: len(files[name]) for name in classes})
