"""Which images a folder has, and of which classes."""

from __future__ import annotations

import csv
import hashlib
import io
import re
from collections.abc import Iterable, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import torch
from torch import Tensor

from free.files import read_json, read_text, shown
from free.images.image_files import find_images, suffixes
from free.models.config import MOST_CLASSES
from free.training.dataset.pixels import FORMATS

_LABEL_FILES = ("labels.csv", "labels.json")
#: Bytes of a file of labels; those of a million images take a quarter of it.
_LARGEST = 256 << 20


class Listing(NamedTuple):
    """Images of a folder.

    Files are named below the folder, with ``/``, sorted by class and name, or as a label file has
    them. Labels are [n] int64. ``classes`` are the names of the folders of classes 0, 1, ...; None
    if a file has the labels. ``left_out`` are files of the folders that are no images of a class.
    """

    folder: Path
    files: list[str]
    labels: Tensor
    classes: list[str] | None
    left_out: Sequence[str] = ()

    def take(self, index: Tensor) -> Listing:
        """These of the images."""
        files = [self.files[i] for i in index.tolist()]
        return self._replace(files=files, labels=self.labels[index])

    def digest(self) -> str:
        """SHA-256 of names and labels, in hexadecimal; where the folder is does not matter."""
        value = hashlib.sha256()
        for file, label in zip(self.files, self.labels.tolist(), strict=True):
            value.update(f"{file}\0{label}\n".encode(errors="surrogateescape"))
        return value.hexdigest()


def count_classes(folder: str | Path) -> int:
    """Classes of a folder of images: its folders, or what its labels need.

    Raises
    ------
    ValueError
        As :func:`list_images`.
    """
    listing = list_images(folder, None)
    return int(listing.labels.max()) + 1


def list_images(folder: str | Path, num_classes: int | None) -> Listing:
    """The images of a folder with their labels; they are not opened.

    The folder has one folder a class with ``.jpeg``, ``.jpg``, ``.png`` or ``.webp`` in it: the
    classes are 0, 1, ... in the order of their names. Or it has ``labels.csv``, with the header
    ``file,label``, or ``labels.json``, an object ``{"file": label, ...}``; files are named
    relative to the folder, which they cannot leave, labels are the model's classes. Without
    ``num_classes`` the folder may have any number of them.

    Raises
    ------
    ValueError
        If there is no such folder, it has no images, not as many classes as the model, classes
        that are numbers and would be counted in another order, or labels that cannot be used.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise ValueError(
            f"data must be mnist, emoji or a folder that is there, got {str(folder)!r}"
        )
    found = [name for name in _LABEL_FILES if (folder / name).is_file()]
    if len(found) > 1:
        raise ValueError(f"data must have labels.csv or labels.json, got {folder} with both")
    if not found:
        return _of_class_folders(folder, num_classes)
    path = folder / found[0]
    pairs = _checked(_read_csv(path) if path.suffix == ".csv" else _read_json(path), path)
    if not pairs:
        raise ValueError(f"data must have images, got none in {path}")
    most = MOST_CLASSES if num_classes is None else num_classes
    for file, label in pairs.items():
        if not 0 <= label < most:
            raise ValueError(
                f"labels must be in 0..{most - 1}, the model's classes, "
                f"got {shown(label)} for {shown(file)} in {path}"
            )
    return Listing(
        folder,
        list(pairs),
        torch.tensor(list(pairs.values()), dtype=torch.int64, device="cpu"),
        None,
    )


def _of_class_folders(folder: Path, num_classes: int | None) -> Listing:
    try:
        visible = [path for path in folder.iterdir() if not path.name.startswith(".")]
        classes = sorted(path.name for path in visible if path.is_dir())
    except OSError as error:
        raise ValueError(
            f"data must be a folder that can be read, got {folder}: {error.strerror}"
        ) from error
    endings = suffixes(FORMATS)
    if not classes:
        loose = sum(path.name.lower().endswith(endings) for path in visible)
        raise ValueError(
            "data must have one folder a class, or labels.csv or labels.json, "
            f"got {folder} with {loose} images and none of these"
        )
    found = find_images(folder, FORMATS, "data")
    files = [file for file in found.files if file.count("/") == 1]
    left_out = sorted([*found.left_out, *(file for file in found.files if file.count("/") != 1)])
    number = {name: label for label, name in enumerate(classes)}
    labels = [number[file.partition("/")[0]] for file in files]
    if empty := set(range(len(classes))) - set(labels):
        raise ValueError(
            f"data must have images ({', '.join(endings)}) in the folder of each class, "
            f"got {folder / classes[min(empty)]} without any"
        )
    if num_classes is not None and len(classes) != num_classes:
        raise ValueError(
            f"data must have one folder for each of the model's {num_classes} classes, got "
            f"{len(classes)} in {folder} ({', '.join(classes[:3])}{', ...' * (len(classes) > 3)}); "
            "labels.csv or labels.json can name the model's classes instead"
        )
    _check_order(folder, classes)
    return Listing(
        folder, files, torch.tensor(labels, dtype=torch.int64, device="cpu"), classes, left_out
    )


def _check_order(folder: Path, classes: list[str]) -> None:
    """Refuse folders named by numbers whose order is another one than that of the names."""
    if not all(re.fullmatch(r"[+-]?[0-9]+", name) for name in classes):
        return
    plain = all(name.isdigit() for name in classes)
    padded = "pad the numbers with zeros (00, 01, ...), or " if plain else ""
    for label, (name, meant) in enumerate(zip(classes, sorted(classes, key=int), strict=True)):
        if name != meant:
            raise ValueError(
                "data must have folders whose names, sorted as text, are in the order of the "
                f"classes, got {folder} where class {label} would be {name}, not {meant}: "
                f"{padded}name the classes in labels.csv or labels.json"
            )


def _read_csv(path: Path) -> Iterable[tuple[str, Any]]:
    try:
        rows = list(csv.reader(io.StringIO(read_text(path, _LARGEST), newline="")))
    except (OSError, ValueError, csv.Error) as error:
        raise ValueError(f"data must have labels that can be read, got {path}: {error}") from error
    if not rows or rows[0] != ["file", "label"]:
        got = ",".join(rows[0]) if rows else ""
        raise ValueError(f"{path} must begin with file,label, got {shown(got)}")
    for number, row in enumerate(rows[1:], start=2):
        if not row:  # a blank line, as editors leave one at the end
            continue
        if len(row) != 2 or not re.fullmatch(r"[+-]?[0-9]{1,18}", row[1].strip()):
            raise ValueError(
                f"{path} must have a name and an integer in each row, got {shown(row)} in row "
                f"{number}"
            )
        yield row[0], int(row[1])


def _read_json(path: Path) -> Iterable[tuple[str, Any]]:
    try:
        pairs = read_json(path, "file", list, largest=_LARGEST, pairs=list)
    except ValueError as error:
        raise ValueError(f"data must have labels that can be read, got {path}: {error}") from error
    if not all(isinstance(pair, tuple) and type(pair[1]) is int for pair in pairs):
        raise ValueError(f'{path} must be an object {{"file": label, ...}} of integer labels')
    return pairs


def _checked(pairs: Iterable[tuple[str, Any]], path: Path) -> dict[str, int]:
    """Labels by file; each is named once, and lies in the folder."""
    labels: dict[str, int] = {}
    for file, label in pairs:
        if file in labels:
            raise ValueError(f"{path} must name each file once, got {shown(file)} again")
        parts = PurePosixPath(file).parts
        if not parts or ".." in parts or parts[0] == "/":
            raise ValueError(f"{path} must name files in its folder, got {shown(file)}")
        labels[file] = label
    return labels
