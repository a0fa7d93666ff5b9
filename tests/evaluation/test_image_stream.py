"""Sets of images: what is read, and what is refused with its name."""

import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from free.evaluation.image_stream import open_images
from tests.evaluation.networks import noise

IMAGES = noise(7, 5, 6, 3)


def _read(source: object, rows: int = 3) -> np.ndarray:
    found = open_images(source, "samples")
    parts = list(found.chunks(rows))
    assert all(1 <= len(part) <= rows for part in parts)
    whole = np.concatenate(parts)
    assert whole.shape == (found.count, *found.shape)
    return whole


def _folder(path: Path, images: Sequence[np.ndarray] | np.ndarray = IMAGES) -> Path:
    path.mkdir()
    for index, image in enumerate(images):
        Image.fromarray(image.squeeze()).save(path / f"{index:02d}.png")
    return path


def test_folders(tmp_path: Path) -> None:
    """In the order of names, those below included; other files are left alone."""
    folder = _folder(tmp_path / "x", IMAGES[:5])
    _folder(folder / "z", IMAGES[5:])
    (folder / "notes.txt").write_text("no image")
    (folder / ".half-written.png").write_bytes(b"")
    np.testing.assert_array_equal(_read(folder), IMAGES)
    grey = noise(3, 4, 4, 1)
    np.testing.assert_array_equal(_read(_folder(tmp_path / "grey", grey)), grey)


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_archives(tmp_path: Path, save: Callable[..., None]) -> None:
    labels = np.arange(7)
    save(tmp_path / "x.npz", arr_0=IMAGES, arr_1=labels)
    np.testing.assert_array_equal(_read(tmp_path / "x.npz"), IMAGES)
    found = open_images(tmp_path / "x.npz", "samples").labels
    assert found is not None
    assert found.tolist() == labels.tolist()


def test_archives_with_statistics(tmp_path: Path) -> None:
    statistics = {"mu": np.arange(4.0), "sigma": np.eye(4)}
    for images, count in (({"arr_0": IMAGES}, 7), ({}, 0)):
        np.savez(tmp_path / "x.npz", **images, **statistics)
        found = open_images(tmp_path / "x.npz", "reference")
        assert found.count == count
        np.testing.assert_equal(found.statistics, statistics)


def test_arrays_and_samples() -> None:
    np.testing.assert_array_equal(_read(IMAGES), IMAGES)
    samples = torch.tensor([-1.0, 0.0, 1.0]).view(3, 1, 1, 1).expand(3, 1, 2, 2)
    assert _read(samples)[:, 0, 0, 0].tolist() == [0, 128, 255]


def test_the_real_digits() -> None:
    found = open_images("mnist", "reference")
    assert (found.count, found.shape) == (5000, (28, 28, 1))
    assert found.labels is not None
    assert np.bincount(found.labels).tolist() == [500] * 10


def _beside(*shape: int) -> Callable[[Path], Path]:
    """A folder of good images and one of this shape."""

    def write(path: Path) -> Path:
        Image.fromarray(noise(*shape)).save(_folder(path) / "90.png")
        return path

    return write


def _alone(*images: np.ndarray) -> Callable[[Path], Path]:
    return lambda path: _folder(path, images)


def _damaged(path: Path) -> Path:
    file = _folder(path) / "03.png"
    file.write_bytes(file.read_bytes()[:100])
    return path


def _npz(**arrays: np.ndarray) -> Callable[[Path], Path]:
    def write(path: Path) -> Path:
        np.savez(path.with_suffix(".npz"), **arrays)
        return path.with_suffix(".npz")

    return write


def _truncated(path: Path) -> Path:
    file = _npz(arr_0=noise(50, 5, 6, 3))(path)
    whole = bytearray(file.read_bytes())
    start = whole.index(b"NUMPY") + 200
    whole[start : start + 8] = bytes(8)  # a checksum finds what a length does not
    file.write_bytes(whole)
    return file


def _stray(path: Path) -> Path:
    file = path.with_suffix(".npz")
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("readme.txt", "hello, these are no arrays")
    return file


def _text(path: Path) -> Path:
    path.with_suffix(".npz").write_text("<html>not found</html>")
    return path.with_suffix(".npz")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (_alone(), r"samples must be a folder with images \(.bmp, .* got .*x without any"),
        (
            _beside(4, 6, 3),
            r"images of one size, got 5 x 6 RGB in .*00.png and 4 x 6 RGB in .*90.png",
        ),
        (
            _beside(5, 6),
            r"images of one size, got 5 x 6 RGB in .*00.png and 5 x 6 grey in .*90.png",
        ),
        (_damaged, r"samples must have images that can be read, got .*03.png: "),
        (_alone(noise(5, 6, 4)), r"images of 8 bits, grey or RGB, got .*0.png of mode RGBA"),
        (
            _alone(noise(5, 6).astype(np.uint16)),
            r"images of 8 bits, grey or RGB, got .*0.png of mode I;16",
        ),
        (_npz(images=IMAGES), r"samples must have arr_0, the images, got .*x.npz with images"),
        (_npz(arr_0=IMAGES / 255), r"arr_0 of uint8 .* got float64 of shape \[7, 5, 6, 3\]"),
        (_npz(arr_0=IMAGES[0]), r"shape \[n, H, W, 1 or 3\], got uint8 of shape \[5, 6, 3\]"),
        (_npz(arr_0=IMAGES[:0]), r"shape \[n, H, W, 1 or 3\], got uint8 of shape \[0, 5, 6, 3\]"),
        (_npz(arr_0=IMAGES, arr_1=np.array([{}])), r"must be numbers in C order, got object"),
        (_text, r"samples must be an .npz of arrays that can be read, got .*: File is not a zip"),
        (_stray, r"samples must be an .npz of arrays that can be read, got .*x.npz: "),
        (_truncated, r"samples must be whole, got .*x.npz, truncated or damaged: Bad CRC-32"),
        (lambda path: path, r"a folder of images, an .npz with arr_0, or mnist.* does not exist"),
    ],
)
def test_what_cannot_be_used_is_named(tmp_path, make, message) -> None:
    source = make(tmp_path / "x")
    with pytest.raises(ValueError, match=message):
        _read(source)


_NAN = torch.zeros(9, 1, 4, 4)
_NAN[6, 0, 1, 2] = torch.nan


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (IMAGES / 255, r"samples must be uint8 .* got float64 of shape"),
        (IMAGES[:0], "samples must have images, got none"),
        (torch.zeros(2, 4, 4, 3), r"samples must be floats of shape \[n, 1 or 3, H, W\]"),
        (_NAN, r"samples must be finite, .* in images \[6\]"),
    ],
)
def test_arrays_that_cannot_be_used(source: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        open_images(source, "samples")
