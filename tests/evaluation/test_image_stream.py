"""Sets of images: what is read, and what is refused with its name."""

import tracemalloc
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path

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
    _folder(folder / ".ipynb_checkpoints", IMAGES[:1])
    (folder / "zz").symlink_to(_folder(tmp_path / "elsewhere", IMAGES[:2]))
    np.testing.assert_array_equal(_read(folder), np.concatenate([IMAGES, IMAGES[:2]]))
    assert open_images(folder, "samples").left_out == ["notes.txt"]
    grey = noise(3, 4, 4, 1)
    np.testing.assert_array_equal(_read(_folder(tmp_path / "grey", grey)), grey)


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_archives(tmp_path: Path, save: Callable[..., None]) -> None:
    labels = np.arange(7)
    save(tmp_path / "x.npz", arr_0=IMAGES, arr_1=labels)
    np.testing.assert_array_equal(_read(tmp_path / "x.npz"), IMAGES)
    assert open_images(tmp_path / "x.npz", "samples").labels.tolist() == labels.tolist()


def test_archives_with_statistics(tmp_path: Path) -> None:
    statistics = {"mu": np.arange(4.0), "sigma": np.eye(4)}
    for images, count in (({"arr_0": IMAGES}, 7), ({}, 0)):
        np.savez(tmp_path / "x.npz", **images, **statistics)
        found = open_images(tmp_path / "x.npz", "reference")
        assert found.count == count
        np.testing.assert_equal(found.statistics, statistics)


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
@pytest.mark.parametrize(
    "other", [np.array(5), np.array([{}]), np.arange(6), np.ones(7), np.eye(7, order="F")]
)
def test_what_else_an_archive_holds_is_nothing_to_it(tmp_path, save, other) -> None:
    """A second array that is no class for each image, whatever it is."""
    save(tmp_path / "x.npz", IMAGES, other, unrelated=other, sigma=np.eye(3, 4).T)
    with zipfile.ZipFile(tmp_path / "x.npz", "a") as archive:
        archive.writestr("sub/x.npy", b"notnpy")
    np.testing.assert_array_equal(_read(tmp_path / "x.npz"), IMAGES)
    found = open_images(tmp_path / "x.npz", "samples")
    assert found.labels is None
    np.testing.assert_array_equal(found.statistics["sigma"], np.eye(3, 4).T)  # in Fortran order


def test_sizes_are_looked_at_before_anything_is_inflated(tmp_path: Path) -> None:
    np.savez_compressed(tmp_path / "x.npz", mu=np.zeros(2**25), sigma=np.eye(4))
    tracemalloc.start()
    try:
        with pytest.raises(
            ValueError, match=r"mu must have at most .* float64 of shape \[33554432"
        ):
            open_images(tmp_path / "x.npz", "reference")
        assert tracemalloc.get_traced_memory()[1] < 20e6
    finally:
        tracemalloc.stop()


def test_arrays_and_samples() -> None:
    np.testing.assert_array_equal(_read(IMAGES), IMAGES)
    samples = torch.tensor([-1.0, 0.0, 1.0]).view(3, 1, 1, 1).expand(3, 1, 2, 2)
    assert _read(samples)[:, 0, 0, 0].tolist() == [0, 128, 255]


@pytest.mark.parametrize(
    ("images", "message"),
    [
        ([], r"samples must be a folder with images \(.bmp, .* got .*x without any"),
        ([*IMAGES, noise(4, 6, 3)], "one size, got 5 x 6 RGB in .*00.png and 4 x 6 RGB in .*07.p"),
        ([*IMAGES, noise(5, 6)], "one size, got 5 x 6 RGB in .*00.png and 5 x 6 grey in .*07.png"),
        ([noise(5, 6, 4)], "images of 8 bits, grey or RGB, got .*0.png of mode RGBA"),
        ({"images": IMAGES}, "samples must have arr_0, the images, got .*x.npz with images"),
        ({"arr_0": IMAGES / 255}, r"arr_0 of uint8 .* got float64 of shape \[7, 5, 6, 3\]"),
        ({"arr_0": IMAGES[0]}, r"shape \[n, H, W, 1 or 3\], got uint8 of shape \[5, 6, 3\]"),
        ({"arr_0": np.array([{}])}, r"arr_0 of uint8 .* got object of shape \[1\]"),
        ({"arr_0": np.asfortranarray(IMAGES)}, "got Fortran order in .*npz: save np.ascontiguousa"),
        ({"mu": np.zeros(2**24 + 1), "sigma": np.eye(2)}, "mu must have at most 134217728 bytes"),
        ({"mu": np.array(["a"]), "sigma": np.eye(2)}, "mu must be numbers, got <U1"),
        (IMAGES / 255, r"samples must be uint8 .* got float64 of shape"),
        (IMAGES[:0], "samples must have images, got none"),
        (IMAGES % 2, "samples must be bytes from 0 to 255, got none above 1"),
        ([Image.new("L", (4, 4))], "samples must be a path, an array of bytes .* got list"),
        (torch.rand(3, 1, 4, 4), r"in \[-1, 1\], got values from .* give 2 \* images - 1"),
        (torch.rand(3, 3, 4, 4) * 255, r"samples must be in \[-1, 1\], got values from .* bytes"),
        (torch.randn(3, 3, 4, 4) * 99, r"samples must be in \[-1, 1\], got values from -"),
        (torch.zeros(2, 4, 4, 3), r"samples must be floats of shape \[n, 1 or 3, H, W\]"),
        (torch.zeros(9, 1, 4, 4).index_fill(0, torch.tensor(6), torch.nan),
         r"samples must be finite, .* in images \[6\]"),
        ("nowhere", "a folder of images, an .npz with arr_0, or mnist.* does not exist"),
    ],
)  # fmt: skip
def test_what_cannot_be_used_is_named(tmp_path, images, message) -> None:
    if isinstance(images, list) and not any(isinstance(image, Image.Image) for image in images):
        images = _folder(tmp_path / "x", images)
    elif isinstance(images, dict):
        np.savez(tmp_path / "x.npz", **images)
        images = tmp_path / "x.npz"
    with pytest.raises(ValueError, match=message):
        _read(images)


def test_damaged_files_are_named(tmp_path: Path) -> None:
    path = tmp_path / "x.npz"

    def refuse(source: Path, message: str) -> None:
        with pytest.raises(ValueError, match=f"samples must {message}"):
            _read(source)

    file = _folder(tmp_path / "x") / "03.png"
    file.write_bytes(file.read_bytes()[:100])
    refuse(tmp_path / "x", "have images that can be read, got .*03.png: ")
    path.write_text("<html>not found</html>")
    refuse(path, "be an .npz of arrays that can be read, got .*: File is not a zip")
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("readme.txt", "hello, these are no arrays")
    refuse(path, "be an .npz of arrays that can be read, got .*x.npz: ")
    np.savez(path, arr_0=noise(50, 5, 6, 3))
    whole = bytearray(path.read_bytes())
    start = whole.index(b"NUMPY") + 200
    whole[start : start + 8] = bytes(8)  # a checksum finds what a length does not
    path.write_bytes(whole)
    refuse(path, "be whole, got .*x.npz, truncated or damaged: Bad CRC-32")
