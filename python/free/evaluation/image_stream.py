"""Sets of images, read piece by piece: folders, archives, arrays, the real digits."""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from free.evaluation.features import check_images
from free.images.archive import member_shapes, read_rows
from free.images.mnist import load_mnist
from free.images.picture import to_uint8

_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff"})
#: How Pillow calls what it has read, and what it becomes; others are refused, not guessed at.
_MODES = {"L": "L", "1": "L", "RGB": "RGB", "P": "RGB"}
#: What statistics are called in ADM's reference archives (and pytorch-fid's).
STATISTICS = ("mu", "sigma", "mu_s", "sigma_s")


@dataclass(frozen=True)
class ImageStream:
    """Images of one size.

    Attributes
    ----------
    count : int
        0 for an archive that has statistics alone.
    shape : tuple of int
        (H, W, C); C is 1 or 3.
    chunks : callable
        ``chunks(rows)`` iterates over ``[<= rows, H, W, C] uint8``, always in the same order.
    labels : ndarray, shape [count], int64, or None
    statistics : dict of str to ndarray
        Those of :data:`STATISTICS` that an archive brings.
    """

    name: str
    count: int
    shape: tuple[int, ...]
    chunks: Callable[[int], Iterator[NDArray[np.uint8]]]
    labels: NDArray[np.int64] | None = None
    statistics: dict[str, NDArray[np.float64]] | None = None


def open_images(source: Any, argument: str) -> ImageStream:
    """Look at a set of images; they are read later, when they are asked for.

    Parameters
    ----------
    source : str, Path, ndarray, Tensor or ImageStream
        A folder of images (searched through), an ``.npz`` with ``arr_0 [n, H, W, 1 or 3] uint8`` as
        ADM and ``free generate`` write it, "mnist" for the 5,000 real digits, an array like
        ``arr_0``, or samples ``[n, 1 or 3, H, W]`` in [-1, 1].
    argument : str
        Its name in messages.

    Raises
    ------
    ValueError
        If there are none, or they cannot be used. Files that are damaged, or of another size than
        the first, show when they are read.
    """
    if isinstance(source, ImageStream):
        return source
    if isinstance(source, Tensor):
        return _of_samples(source, argument)
    if isinstance(source, np.ndarray):
        check_images(source, argument)
        return _of_array(source, argument, None)
    if str(source) == "mnist":
        images, labels = load_mnist()
        return _of_array(to_uint8(images).numpy(), "mnist", labels.numpy())
    path = Path(source)
    if path.is_dir():
        return _of_folder(path, argument)
    if path.suffix == ".npz":
        return _of_archive(path, argument)
    raise ValueError(
        f"{argument} must be a folder of images, an .npz with arr_0, or mnist, got {str(source)!r}"
        + ("" if path.exists() else ", which does not exist")
    )


def _of_samples(samples: Tensor, argument: str) -> ImageStream:
    if samples.ndim != 4 or samples.shape[1] not in (1, 3) or not samples.is_floating_point():
        raise ValueError(
            f"{argument} must be floats of shape [n, 1 or 3, H, W] in [-1, 1], "
            f"got {samples.dtype} of shape {list(samples.shape)}"
        )
    if not bool(samples.isfinite().all()):
        bad = (~samples.flatten(1).isfinite().all(1)).nonzero().flatten().tolist()
        raise ValueError(f"{argument} must be finite, got NaN or infinity in images {bad[:8]}")
    return _of_array(to_uint8(samples).cpu().numpy(), argument, None)


def _of_array(
    images: NDArray[np.uint8], name: str, labels: NDArray[np.int64] | None
) -> ImageStream:
    if not len(images):
        raise ValueError(f"{name} must have images, got none")

    def chunks(rows: int) -> Iterator[NDArray[np.uint8]]:
        for start in range(0, len(images), rows):
            yield images[start : start + rows]

    return ImageStream(name, len(images), images.shape[1:], chunks, labels)


def _of_folder(folder: Path, argument: str) -> ImageStream:
    files = sorted(
        path
        for path in folder.rglob("*")
        if path.suffix.lower() in _SUFFIXES and not path.name.startswith(".")
    )
    if not files:
        raise ValueError(
            f"{argument} must be a folder with images ({', '.join(sorted(_SUFFIXES))}), "
            f"got {folder} without any"
        )
    first = _read_image(files[0], argument)

    def chunks(rows: int) -> Iterator[NDArray[np.uint8]]:
        for start in range(0, len(files), rows):
            images = []
            for file in files[start : start + rows]:
                image = _read_image(file, argument)
                if image.shape != first.shape:
                    raise ValueError(
                        f"{argument} must have images of one size, got {_size(first)} in "
                        f"{files[0]} and {_size(image)} in {file}"
                    )
                images.append(image)
            yield np.stack(images)

    return ImageStream(str(folder), len(files), first.shape, chunks)


def _read_image(path: Path, argument: str) -> NDArray[np.uint8]:
    """One image, [H, W, 1 or 3]."""
    try:
        with Image.open(path) as image:
            mode = image.mode
            pixels = np.asarray(image.convert(_MODES[mode])) if mode in _MODES else None
    except Exception as error:  # Pillow's decoders raise anything on damaged files
        raise ValueError(
            f"{argument} must have images that can be read, got {path}: {error}"
        ) from (error)
    if pixels is None:
        raise ValueError(
            f"{argument} must have images of 8 bits, grey or RGB, got {path} of mode {mode}"
        )
    return pixels.reshape(*pixels.shape[:2], -1)


def _size(image: NDArray[np.uint8]) -> str:
    height, width, channels = image.shape
    return f"{height} x {width} {'grey' if channels == 1 else 'RGB'}"


def _of_archive(path: Path, argument: str) -> ImageStream:
    try:
        members = member_shapes(path)
        statistics = {name: _read_all(path, name) for name in STATISTICS if name in members}
        labels = _read_all(path, "arr_1") if "arr_1" in members else None
    except (OSError, zipfile.BadZipFile, EOFError, ValueError) as error:
        raise ValueError(
            f"{argument} must be an .npz of arrays that can be read, got {path}: {error}"
        ) from error
    if "arr_0" not in members:
        if {"mu", "sigma"} <= statistics.keys():
            return ImageStream(str(path), 0, (), lambda rows: iter(()), None, statistics)
        raise ValueError(
            f"{argument} must have arr_0, the images, got {path} with "
            f"{', '.join(sorted(members)) or 'nothing'}"
        )
    shape, dtype = members["arr_0"]
    if dtype != np.uint8 or len(shape) != 4 or shape[-1] not in (1, 3) or not shape[0]:
        raise ValueError(
            f"{argument} must have arr_0 of uint8 and shape [n, H, W, 1 or 3], "
            f"got {dtype} of shape {list(shape)} in {path}"
        )
    if labels is not None and (labels.shape != shape[:1] or labels.dtype.kind not in "iu"):
        labels = None  # something else is called so

    def chunks(rows: int) -> Iterator[NDArray[np.uint8]]:
        try:
            yield from read_rows(path, "arr_0", rows)
        except (OSError, zipfile.BadZipFile, EOFError) as error:
            raise ValueError(
                f"{argument} must be whole, got {path}, truncated or damaged: {error}"
            ) from error

    labels = None if labels is None else labels.astype(np.int64)
    return ImageStream(str(path), shape[0], shape[1:], chunks, labels, statistics)


def _read_all(path: Path, name: str) -> NDArray[Any]:
    parts = list(read_rows(path, name, 4096))
    return np.concatenate(parts) if parts else np.empty(0)
