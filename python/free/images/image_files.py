"""Image files: which of them a folder has, and how they are opened.

Nobody else in the package opens a picture or walks a folder of them.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from PIL import Image, UnidentifiedImageError

from free.files import check_regular, cut, shown

#: Formats by what Pillow calls them, and how their files end. Pillow has others that run programs.
FORMATS = {
    "BMP": (".bmp",),
    "JPEG": (".jpeg", ".jpg"),
    "PNG": (".png",),
    "TIFF": (".tif", ".tiff"),
    "WEBP": (".webp",),
}
#: More in one image is taken for a decompression bomb. Pillow only warns up to twice as many.
MOST_PIXELS = 1 << 26
#: Kinds of files in a message.
_LISTED = 8


class FoundImages(NamedTuple):
    """Files of a folder, named below it with ``/`` and sorted by name, folder by folder.

    ``files`` end like images; ``left_out`` are the others. Neither has been opened.
    """

    files: list[str]
    left_out: list[str]


def suffixes(formats: Iterable[str]) -> tuple[str, ...]:
    """How files of these formats end, sorted."""
    return tuple(sorted(suffix for name in formats for suffix in FORMATS[name]))


def find_images(folder: Path, formats: Iterable[str], argument: str) -> FoundImages:
    """Look for images in a folder and the folders below it, links to folders included.

    What is hidden, its name beginning with a dot, is not looked at: ``.ipynb_checkpoints``,
    thumbnails, files that are still being written. A ValueError that names ``argument`` if a folder
    cannot be read, or a link leads back to a folder that it lies in.
    """
    found = FoundImages([], [])
    ends = suffixes(formats)
    # Folders and files yet to come, the next one last; with the folders that each lies in.
    pending: list[tuple[str, frozenset[tuple[int, int]]]] = [("", frozenset())]
    while pending:
        name, above = pending.pop()
        if name.lower().endswith(ends):
            found.files.append(name)
            continue
        path = folder / name
        try:
            if not path.is_dir():
                found.left_out.append(name)
                continue
            about = path.stat()
            here = (about.st_dev, about.st_ino)
            if here in above:
                raise ValueError(
                    f"{argument} must be a folder without circles, got {path}, which leads back "
                    "to a folder that it lies in"
                )
            with os.scandir(path) as entries:
                names = sorted(entry.name for entry in entries if not entry.name.startswith("."))
        except OSError as error:
            raise ValueError(
                f"{argument} must have folders that can be read, got {path}: {error.strerror}"
            ) from error
        inside = above | {here}
        pending += [(f"{name}/{last}" if name else last, inside) for last in reversed(names)]
    return found


def describe_left_out(files: Sequence[str]) -> str:
    """How many files are left out and of which kinds, with an example; "" if there are none."""
    if not files:
        return ""
    counts = Counter(PurePosixPath(file).suffix.lower() or "no suffix" for file in files)
    kinds = [f"{count} of {cut(kind, 20)}" for kind, count in counts.most_common(_LISTED)]
    kinds += ["others"] if len(counts) > _LISTED else []
    number = "1 file is" if len(files) == 1 else f"{len(files)} files are"
    return f"{number} left out, such as {shown(files[0])}: {', '.join(kinds)}"


@contextmanager
def open_image(path: Path, formats: Iterable[str]) -> Iterator[Image.Image]:
    """Open an image whose format, told from its content, is one of :data:`FORMATS`; to be closed.

    Raises ValueError if it has too many pixels, or is of another format; OSError or anything else
    that Pillow raises if it cannot be read; a pipe is no file.
    """
    check_regular(path)
    formats = tuple(formats)
    try:
        opened = Image.open(path, formats=formats)
    except UnidentifiedImageError as error:
        raise ValueError(f"by its content it is none of {', '.join(formats)}") from error
    except Image.DecompressionBombError as error:  # before it says how many there are
        raise ValueError(f"it has more than {MOST_PIXELS} pixels") from error
    with opened as image:
        width, height = image.size
        if width * height > MOST_PIXELS:
            raise ValueError(f"{width} x {height}, more than {MOST_PIXELS} pixels")
        yield image
