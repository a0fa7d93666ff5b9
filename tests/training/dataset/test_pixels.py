"""Preparing an image: against the same filters written as matrices, and files of every kind."""

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from free.images import image_files
from free.training.dataset.pixels import centre_crop, read_image
from tests.training.dataset.folders import picture

Array = NDArray[np.float64]


def _box(x: Array) -> Array:
    return ((x > -0.5) & (x <= 0.5)).astype(float)


def _cubic(x: Array) -> Array:
    """Keys's kernel with a = -1/2."""
    x = np.abs(x)
    near = 1.5 * x**3 - 2.5 * x**2 + 1
    far = -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2
    return np.where(x < 1, near, np.where(x < 2, far, 0.0))


def _resized(image: Array, height: int, width: int, kernel: object) -> Array:
    """Rows and columns, each a matrix of the kernel's values stretched over the reduction."""
    for axis, target in ((1, width), (0, height)):
        source = image.shape[axis]
        scale = source / target
        centre = (np.arange(target)[:, None] + 0.5) * scale
        weight = kernel((np.arange(source) + 0.5 - centre) / max(scale, 1.0))  # type: ignore[operator]
        weight /= weight.sum(1, keepdims=True)
        image = np.moveaxis(np.tensordot(weight, image, (1, axis)), 0, axis)
        image = np.clip(np.floor(image + 0.5), 0, 255)  # halves up, as Pillow
    return image


def _expected(image: Image.Image, size: int) -> Array:
    array = np.asarray(image).astype(float)
    while min(array.shape[:2]) >= 2 * size:
        array = _resized(array, array.shape[0] // 2, array.shape[1] // 2, _box)
    scale = size / min(array.shape[:2])
    array = _resized(array, round(array.shape[0] * scale), round(array.shape[1] * scale), _cubic)
    top, left = (array.shape[0] - size) // 2, (array.shape[1] - size) // 2
    return array[top : top + size, left : left + size]


def _noise(width: int, height: int) -> Image.Image:
    random = np.random.default_rng(width * height)
    return Image.fromarray(random.integers(0, 256, (height, width, 3), dtype=np.uint8))


@pytest.mark.parametrize(
    ("width", "height"), [(50, 37), (37, 50), (64, 64), (31, 90), (260, 300), (20, 15)]
)
def test_the_crop_is_adm_s(width: int, height: int) -> None:
    image = _noise(width, height)
    cropped = np.asarray(centre_crop(image, 32)).astype(float)
    assert cropped.shape == (32, 32, 3)
    # Pillow computes in integers: a value that lies between two may go either way.
    assert np.abs(cropped - _expected(image, 32)).max() <= 1


@pytest.mark.parametrize(
    ("mode", "channels"),
    [("1", 3), ("L", 1), ("L", 3), ("LA", 1), ("P", 1), ("P", 3), ("RGBA", 3)],
)
def test_modes_are_converted(tmp_path: Path, mode: str, channels: int) -> None:
    image = picture(40, 30, mode=mode)
    path = tmp_path / "x.jpg"  # what it is called does not matter
    image.save(path, "PNG", **({"transparency": b"\x00\xff" * 4} if mode == "P" else {}))
    read = read_image(path, 30, channels, upscale=False)
    assert read.shape == (30, 30, channels)
    expected = np.asarray(image.convert("L" if channels == 1 else "RGB")).reshape(30, 40, channels)
    assert np.array_equal(read, expected[:, 5:35])


def test_cmyk_jpegs_are_read(tmp_path: Path) -> None:
    picture(40, 30, mode="CMYK").save(tmp_path / "x.jpg")
    read = read_image(tmp_path / "x.jpg", 30, 3, upscale=False).astype(int)
    assert np.abs(read - np.asarray(picture(40, 30))[:, 5:35]).mean() < 8


def test_what_is_of_no_use_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, good = tmp_path / "x.png", picture(40, 30)

    def refuse(image: Image.Image, message: str, side: int = 16, suffix: str = "png") -> None:
        image.save(path.with_suffix(f".{suffix}"))
        path.with_suffix(f".{suffix}").rename(path)
        with pytest.raises((ValueError, OSError), match=message):
            read_image(path, side, 3, upscale=False)

    refuse(good, "40 x 30, smaller than the crop of 31 x 31", 31)
    assert read_image(path, 31, 3, upscale=True).shape == (31, 31, 3)
    refuse(Image.fromarray(np.zeros((30, 40), np.uint16)), "mode I;16, not 8 bits a channel")
    refuse(good, "by its content it is none of", suffix="eps")  # its reader would run a program
    monkeypatch.setattr(image_files, "MOST_PIXELS", 1000)
    refuse(good, "40 x 30, more than 1000 pixels")
