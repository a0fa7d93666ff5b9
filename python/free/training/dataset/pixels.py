"""From an image file to the square of pixels that is trained on."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from free.images.image_files import open_image

#: Formats that are read, whatever a file is called.
FORMATS = ("JPEG", "PNG", "WEBP")
#: Of 8 bits a channel, as Pillow calls them; others would be clipped, not converted.
_MODES = frozenset({"1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr"})


def centre_crop(image: Image.Image, size: int) -> Image.Image:
    """The central square of an image, of the same mode, its short side resized to ``size``.

    As ADM and DiT prepare ImageNet: halve with a box filter while the short side is at least
    twice the target, bicubic to the target, crop. Without the halvings, large images would be
    reduced with another filter than the published models were trained with.

    References
    ----------
    Dhariwal and Nichol, "Diffusion models beat GANs on image synthesis", 2021, and its code.
    """
    while min(image.size) >= 2 * size:
        image = image.resize((image.width // 2, image.height // 2), Image.Resampling.BOX)
    scale = size / min(image.size)
    image = image.resize(
        (round(image.width * scale), round(image.height * scale)), Image.Resampling.BICUBIC
    )
    left, upper = (image.width - size) // 2, (image.height - size) // 2
    return image.crop((left, upper, left + size, upper + size))


def read_image(path: Path, size: int, channels: int, upscale: bool) -> NDArray[np.uint8]:
    """The central square of an image file, [size, size, channels] uint8.

    The orientation that a camera noted is not applied, nor is transparency: as torchvision's
    ``ImageFolder``, which the published models were trained with. The file is JPEG, PNG or WebP,
    told from its content. One channel is grey and three are RGB, whatever it has. An image that is
    smaller is enlarged if ``upscale`` says so.

    Raises
    ------
    ValueError
        If the image is too small, too large, or not of 8 bits a channel.
    Exception
        Anything that Pillow raises on damaged files.
    """
    with open_image(path, FORMATS) as image:
        width, height = image.size
        if min(width, height) < size and not upscale:
            raise ValueError(
                f"{width} x {height}, smaller than the crop of {size} x {size}; upscale enlarges it"
            )
        if image.mode not in _MODES:
            raise ValueError(f"mode {image.mode}, not 8 bits a channel")
        loaded: Image.Image = image
        if image.mode == "P" and "transparency" in image.info:
            loaded = image.convert("RGBA")  # straight to RGB, Pillow warns
        square = centre_crop(loaded.convert("L" if channels == 1 else "RGB"), size)
    return np.asarray(square).reshape(size, size, channels)
