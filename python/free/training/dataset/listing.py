"""Which images a folder has, and of which classes."""

from __future__ import annotations

import csv
import hashlib
import json
import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

_SUFFIXES = (".jpeg", ".jpg", ".png", ".webp")
_LABEL_FILES = ("labels.csv", "labels.json")


class Listing(NamedTuple):
    """Images of a folder.

    Files are named below the folder, with ``/``, sorted by class and name, or as a label file has
    them. Labels are [n] int64. ``classes`` are the names of the folders of classes 0, 1, ...; None
    if a file has the labels.
    """

    folder: Path
    files: list[str]
    labels: Tensor
    classes: list[str] | None

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


def list_images(folder: str | Path, num_classes: int) -> Listing:
    """The images of a folder with their labels; they are not opened.

    The folder has one folder a class with ``.jpeg``, ``.jpg``, ``.png`` or ``.webp`` in it: the
    classes are 0, 1, ... in the order of their names. Or it has ``labels.csv``, with the header
    ``file,label``, or ``labels.json``, an object ``{"file": label, ...}``; files are named
    relative to the folder, labels are the model's classes.

    Raises
    ------
    ValueError
        If there is no such folder, it has no images, not as many classes as the model, or labels
        that cannot be used.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise ValueError(f"data must be mnist or a folder that is there, got {str(folder)!r}")
    found = [name for name in _LABEL_FILES if (folder / name).is_file()]
    if len(found) > 1:
        raise ValueError(f"data must have labels.csv or labels.json, got {folder} with both")
    if not found:
        return _of_class_folders(folder, num_classes)
    path = folder / found[0]
    pairs = _unique(_read_csv(path) if path.suffix == ".csv" else _read_json(path), path)
    if not pairs:
        raise ValueError(f"data must have images, got none in {path}")
    for file, label in pairs.items():
        if not 0 <= label < num_classes:
            raise ValueError(
                f"labels must be in 0..{num_classes - 1}, the model's classes, "
                f"got {label} for {file!r} in {path}"
            )
    return Listing(
        folder,
        list(pairs),
        torch.tensor(list(pairs.values()), dtype=torch.int64, device="cpu"),
        None,
    )


def _of_class_folders(folder: Path, num_classes: int) -> Listing:
    with os.scandir(folder) as entries:
        names = [(e.name, e.is_dir()) for e in entries if not e.name.startswith(".")]
    classes = sorted(name for name, is_folder in names if is_folder)
    if not classes:
        loose = sum(name.lower().endswith(_SUFFIXES) for name, _ in names)
        raise ValueError(
            "data must have one folder a class, or labels.csv or labels.json, "
            f"got {folder} with {loose} images and none of these"
        )
    files: list[str] = []
    labels: list[int] = []
    for label, name in enumerate(classes):
        with os.scandir(folder / name) as entries:
            found = sorted(
                f"{name}/{entry.name}"
                for entry in entries
                if entry.name.lower().endswith(_SUFFIXES) and not entry.name.startswith(".")
            )
        if not found:
            raise ValueError(
                f"data must have images ({', '.join(_SUFFIXES)}) in the folder of each class, "
                f"got {folder / name} without any"
            )
        files += found
        labels += [label] * len(found)
    if len(classes) != num_classes:
        raise ValueError(
            f"data must have one folder for each of the model's {num_classes} classes, got "
            f"{len(classes)} in {folder} ({', '.join(classes[:3])}{', ...' * (len(classes) > 3)}); "
            "labels.csv or labels.json can name the model's classes instead"
        )
    return Listing(folder, files, torch.tensor(labels, dtype=torch.int64, device="cpu"), classes)


def _read_csv(path: Path) -> Iterable[tuple[str, Any]]:
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            rows = list(csv.reader(file))
    except (OSError, ValueError, csv.Error) as error:
        raise ValueError(f"data must have labels that can be read, got {path}: {error}") from error
    if not rows or rows[0] != ["file", "label"]:
        got = ",".join(rows[0]) if rows else ""
        raise ValueError(f"{path} must begin with file,label, got {got!r}")
    for number, row in enumerate(rows[1:], start=2):
        if len(row) != 2 or not re.fullmatch(r"[+-]?[0-9]{1,18}", row[1].strip()):
            raise ValueError(
                f"{path} must have a name and an integer in each row, got {row} in row {number}"
            )
        yield row[0], int(row[1])


def _read_json(path: Path) -> Iterable[tuple[str, Any]]:
    try:
        pairs = json.loads(path.read_text(encoding="utf-8"), object_pairs_hook=list)
    except (OSError, ValueError, RecursionError) as error:
        raise ValueError(f"data must have labels that can be read, got {path}: {error}") from error
    if not isinstance(pairs, list) or not all(
        isinstance(pair, tuple) and type(pair[1]) is int for pair in pairs
    ):
        raise ValueError(f'{path} must be an object {{"file": label, ...}} of integer labels')
    return pairs


def _unique(pairs: Iterable[tuple[str, Any]], path: Path) -> dict[str, int]:
    labels: dict[str, int] = {}
    for file, label in pairs:
        if file in labels:
            raise ValueError(f"{path} must name each file once, got {file!r} again")
        labels[file] = label
    return labels
