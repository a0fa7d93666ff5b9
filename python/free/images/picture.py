"""Pictures of samples: bytes of pixels, and a grid with captions."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

_MARGIN = 8


def check_drawable(sample_shape: Sequence[int]) -> None:
    """Raise a ValueError unless samples of this shape are images of 1 or 3 channels."""
    if len(sample_shape) != 3 or sample_shape[0] not in (1, 3):
        got = ", ".join(map(str, sample_shape))
        raise ValueError(f"samples must be [B, 1 or 3, H, W] to be drawn, got [B, {got}]")


def check_picture_suffix(path: Path, argument: str) -> None:
    """Raise a ValueError naming ``argument`` unless pictures can be saved under this name."""
    formats = Image.registered_extensions()
    if formats.get(path.suffix.lower()) not in Image.SAVE:
        raise ValueError(f"{argument} must end like a picture (.png, .jpg ...), got {path.name!r}")


def to_uint8(images: Tensor) -> Tensor:
    """Images [R, C, H, W] of any floating-point dtype in [-1, 1] as bytes [R, H, W, C].

    Rounded as DiT's script for 50,000 samples does: ``127.5 x + 128``, truncated. Values outside
    are clipped; NaN is not looked for.
    """
    pixels = torch.clamp(127.5 * images.float() + 128.0, 0, 255)
    return pixels.permute(0, 2, 3, 1).to(torch.uint8)


def image_grid(
    rows: Sequence[tuple[str, Tensor]], captions: Sequence[str], scale: int = 3, columns: int = 10
) -> Image.Image:
    """Arrange samples in titled blocks of captioned images.

    A row is the title and the samples [B, C, H, W] of a block, in [-1, 1]; values outside are
    clipped. C is 1 or 3, or a ValueError is raised. Every block has the same B captions. ``scale``
    is the side of a sample's pixel in the picture; a line has ``columns`` images at most.
    """
    for _, samples in rows:
        check_drawable(tuple(samples.shape[1:]))
    height, width = (scale * extent for extent in rows[0][1].shape[2:])
    columns = min(columns, len(captions))
    lines = -(-len(captions) // columns)
    font, title_font = ImageFont.load_default(12), ImageFont.load_default(15)
    cell_width, cell_height = width + _MARGIN, height + 16 + _MARGIN
    block = 24 + lines * cell_height
    canvas = Image.new(
        "RGB", (columns * cell_width + _MARGIN, len(rows) * block + _MARGIN), "white"
    )
    draw = ImageDraw.Draw(canvas)
    for index, (title, samples) in enumerate(rows):
        top = index * block + _MARGIN
        draw.text((_MARGIN, top), title, "black", title_font)
        pixels = to_uint8(samples).expand(-1, -1, -1, 3).cpu()
        for place, (image, caption) in enumerate(zip(pixels, captions, strict=True)):
            left = _MARGIN + place % columns * cell_width
            upper = top + 24 + place // columns * cell_height
            tile = Image.fromarray(image.numpy()).resize((width, height), Image.Resampling.NEAREST)
            canvas.paste(tile, (left, upper))
            draw.text((left + width / 2, upper + height + 1), caption, "black", font, anchor="ma")
    return canvas
