"""Sets of images, read piece by piece: folders, archives, arrays, the real digits."""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from free.evaluation.features import check_images
from free.files import cut
from free.images.archive import Header, array_names, read_array, read_headers, read_rows
from free.images.image_files import FORMATS, MOST_PIXELS, find_images, open_image, suffixes
from free.images.picture import to_uint8
from free.images.real import REAL_IMAGES

#: How Pillow calls what it has read, and what it becomes; others are refused, not guessed at.
_MODES = {"L": "L", "1": "L", "RGB": "RGB", "P": "RGB"}
#: Bytes of an array of statistics, four times those of Inception's covariance, and of the labels of
#: more images than there are in any set.
_LARGEST_STATISTIC, _LARGEST_LABELS = 1 << 27, 1 << 30
#: What statistics are called in ADM's reference archives (and pytorch-fid's).
STATISTICS = ("mu", "sigma", "mu_s", "sigma_s")
#: Images and labels as ADM calls them; nothing else of an archive is looked at.
_READ = ("arr_0", "arr_1", *STATISTICS)


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
    left_out : sequence of str
        Files of a folder that are no images, as :func:`free.images.image_files.find_images` says.
    """

    name: str
    count: int
    shape: tuple[int, ...]
    chunks: Callable[[int], Iterator[NDArray[np.uint8]]]
    labels: NDArray[np.int64] | None = None
    statistics: dict[str, NDArray[np.float64]] | None = None
    left_out: Sequence[str] = ()


def open_images(source: Any, argument: str) -> ImageStream:
    """Look at a set of images; they are read later, when they are asked for.

    Parameters
    ----------
    source : str, Path, ndarray, Tensor or ImageStream
        A folder of images, an ``.npz`` with ``arr_0 [n, H, W, 1 or 3] uint8`` as
        ADM and ``free generate`` write it, "mnist" or "emoji" for the real images that the
        embedded models were trained on, an array like
        ``arr_0``, or samples ``[n, 1 or 3, H, W]`` in [-1, 1]. A folder is searched through, but
        for what is hidden.
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
        if source.size and source.max() == 1:
            raise ValueError(f"{argument} must be bytes from 0 to 255, got none above 1")
        return _of_array(source, argument, None)
    if not isinstance(source, (str, Path)):
        raise ValueError(
            f"{argument} must be a path, an array of bytes [n, H, W, 1 or 3] or a tensor of "
            f"samples [n, 1 or 3, H, W], got {type(source).__name__}"
        )
    if str(source) in REAL_IMAGES:
        images, labels = REAL_IMAGES[str(source)]()
        return _of_array(to_uint8(images).numpy(), str(source), labels.numpy())
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
    if len(samples):
        _check_range(samples, argument)
    return _of_array(to_uint8(samples).cpu().numpy(), argument, None)


def _check_range(samples: Tensor, argument: str) -> None:
    """Refuse samples that cannot be meant to be in [-1, 1]: figures of others would look like any.

    No set of pictures is without a value in the darker half of the range; and where most values are
    far outside, nothing would be left of the pictures. Some values always are a little outside.
    """
    low, high = samples.min().item(), samples.max().item()
    if low >= 0 or (samples.abs() > 2).float().mean() > 0.5:
        raise ValueError(
            f"{argument} must be in [-1, 1], got values from {low:.3g} to {high:.3g}: of images in "
            "[0, 1], as a pipeline's output_type 'pt' makes them, give 2 * images - 1; of others "
            "bytes [n, H, W, 1 or 3]"
        )


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
    found = find_images(folder, FORMATS, argument)
    files = [folder / name for name in found.files]
    if not files:
        raise ValueError(
            f"{argument} must be a folder with images ({', '.join(suffixes(FORMATS))}), "
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

    return ImageStream(str(folder), len(files), first.shape, chunks, left_out=found.left_out)


def _read_image(path: Path, argument: str) -> NDArray[np.uint8]:
    """One image, [H, W, 1 or 3]."""
    try:
        with open_image(path, FORMATS) as image:
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
        names = array_names(path)
        headers = read_headers(path, [name for name in _READ if name in names])
        statistics = _read_statistics(path, headers)
        labels = _read_labels(path, headers)
    except (OSError, zipfile.BadZipFile, EOFError, ValueError) as error:
        raise ValueError(
            f"{argument} must be an .npz of arrays that can be read, got {path}: {error}"
        ) from error
    if "arr_0" not in headers:
        if {"mu", "sigma"} <= statistics.keys():
            return ImageStream(str(path), 0, (), lambda rows: iter(()), None, statistics)
        raise ValueError(
            f"{argument} must have arr_0, the images, got {path} with "
            f"{cut(', '.join(sorted(names)))}"
        )
    shape, dtype, fortran_order = headers["arr_0"]
    if dtype != np.uint8 or len(shape) != 4 or shape[-1] not in (1, 3) or not all(shape):
        raise ValueError(
            f"{argument} must have arr_0 of uint8 and shape [n, H, W, 1 or 3], "
            f"got {dtype} of shape {list(shape)} in {path}"
        )
    if fortran_order:
        raise ValueError(
            f"{argument} must have arr_0 whose images lie one after the other, got Fortran order "
            f"in {path}: save np.ascontiguousarray of it"
        )
    if shape[1] * shape[2] > MOST_PIXELS:
        raise ValueError(
            f"{argument} must have images of at most {MOST_PIXELS} pixels, got {shape[1]} x "
            f"{shape[2]} in {path}"
        )

    def chunks(rows: int) -> Iterator[NDArray[np.uint8]]:
        try:
            yield from read_rows(path, "arr_0", rows)
        except (OSError, zipfile.BadZipFile, EOFError) as error:
            raise ValueError(
                f"{argument} must be whole, got {path}, truncated or damaged: {error}"
            ) from error

    return ImageStream(str(path), shape[0], shape[1:], chunks, labels, statistics)


def _read_statistics(path: Path, headers: dict[str, Header]) -> dict[str, NDArray[np.float64]]:
    """Those that an archive has; their size is looked at before they are read."""
    present = [name for name in STATISTICS if name in headers]
    for name in present:
        if headers[name].dtype.kind not in "iuf":
            raise ValueError(f"{name} must be numbers, got {headers[name].dtype}")
        if headers[name].nbytes > _LARGEST_STATISTIC:
            raise ValueError(
                f"{name} must have at most {_LARGEST_STATISTIC} bytes, "
                f"got {headers[name].dtype} of shape {list(headers[name].shape)}"
            )
    return {name: read_array(path, name) for name in present}


def _read_labels(path: Path, headers: dict[str, Header]) -> NDArray[np.int64] | None:
    """``arr_1``, if there is an integer for each image; else it is something else."""
    images, labels = headers.get("arr_0"), headers.get("arr_1")
    if images is None or labels is None:
        return None
    if labels.dtype.kind not in "iu" or labels.shape != images.shape[:1]:
        return None
    if labels.nbytes > _LARGEST_LABELS:
        raise ValueError(f"arr_1 must have at most {_LARGEST_LABELS} bytes, got {labels.nbytes}")
    return read_array(path, "arr_1").astype(np.int64)
