"""Finished chunks of a run: files that are there and whole, or not there."""

from __future__ import annotations

import dataclasses
import json
import shutil
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from free.files import cut, locked, parse_json, write_atomic
from free.generation.plan import Plan
from free.generation.run_manifest import MANIFEST
from free.images.archive import Member, read_array, read_headers, write_npz
from free.rounds.report import Report

#: Bytes of a chunk's labels and of its report.
_LARGEST_NOTES = 256 << 20


class Chunk(NamedTuple):
    """What one call of the sampler made: images [R, H, W, C] uint8, and the report."""

    images: NDArray[np.uint8]
    report: Report


class ChunkFolder:
    """The folder beside the output where chunks of (H, W, C) images wait until all are there."""

    def __init__(self, path: Path, plan: Plan, image_shape: tuple[int, ...]) -> None:
        self.path = path
        self.plan = plan
        self.image_shape = image_shape

    def file(self, chunk: int) -> Path:
        """Where a chunk is, or will be."""
        return self.path / f"chunk-{chunk:08d}.npz"

    def write(self, chunk: int, content: Chunk) -> None:
        """Keep a chunk.

        A RuntimeError if the folder is gone: then another process has finished the run. An OSError
        if it cannot be written; nothing of it is left.
        """
        if not (self.path / MANIFEST).is_file():
            raise RuntimeError(f"{self.path} is gone: another process has ended this run")
        labels = self.plan.labels[self.plan.span(chunk)]
        report = json.dumps(dataclasses.asdict(content.report)).encode()
        members = [
            Member("arr_0", content.images.shape, np.uint8, [content.images]),
            Member("arr_1", labels.shape, np.int64, [labels]),
            Member("report", (len(report),), np.uint8, [np.frombuffer(report, np.uint8)]),
        ]
        write_atomic(self.file(chunk), lambda temporary: write_npz(temporary, members))

    def read(self, chunk: int) -> Chunk:
        """A chunk, checked: its bytes by their checksum, and that they are what was asked for.

        A ValueError says how it is missing, damaged or another one.
        """
        path = self.file(chunk)
        expected = (self.plan.size(chunk), *self.image_shape)
        try:
            headers = read_headers(path, ("arr_0", "arr_1", "report"))
            shape, dtype, _ = headers["arr_0"]
            if dtype != np.uint8 or shape != expected:
                raise ValueError(
                    f"it must have uint8 of shape {list(expected)}, got {dtype} of {list(shape)}"
                )
            if max(headers[name].nbytes for name in ("arr_1", "report")) > _LARGEST_NOTES:
                raise ValueError(f"its notes must have at most {_LARGEST_NOTES} bytes each")
            images, labels = read_array(path, "arr_0"), read_array(path, "arr_1")
            report = Report(**parse_json(read_array(path, "report").tobytes()))
        except (OSError, ValueError, TypeError, KeyError, EOFError, zipfile.BadZipFile) as error:
            raise ValueError(f"{path.name} is missing or damaged: {cut(str(error))}") from error
        if not np.array_equal(
            labels, self.plan.labels[self.plan.span(chunk)]
        ) or report.seeds != self.plan.seeds(chunk):
            raise ValueError(f"{path.name} must have its own labels and seeds, got others")
        return Chunk(images, report)

    def present(self) -> NDArray[np.bool_]:
        """Which chunks have a file, [chunks]."""
        present = np.zeros(len(self.plan), np.bool_)
        if self.path.is_dir():
            for path in self.path.iterdir():
                number = path.name.removeprefix("chunk-").removesuffix(".npz")
                if number.isdigit() and int(number) < len(present):
                    present[int(number)] = True
        return present

    def sweep(self) -> None:
        """Remove what a process that was killed left half-written."""
        for path in self.path.glob(".chunk-*"):
            path.unlink(missing_ok=True)

    def remove(self) -> None:
        """Remove the folder; the manifest after the chunks, lest they be nobody's."""
        for path in self.path.glob("chunk-*"):
            path.unlink()
        shutil.rmtree(self.path)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Make the folder, and keep other runs out; a ValueError if another process has it.

        The lock goes with the process, however that ends.
        """
        if self.path.exists() and not self.path.is_dir():
            raise ValueError(f"out must have room for a folder beside it, got the file {self.path}")
        self.path.mkdir(parents=True, exist_ok=True)
        busy = f"out must not be in the making by another process, got {self.path}, which is locked"
        with locked(self.path / "lock", busy):
            yield


def write_pngs(folder: Path, start: int, images: NDArray[Any]) -> None:
    """Write images ``[R, H, W, 1 or 3]`` as ``000000.png`` and so on; those there are left."""
    for index, image in enumerate(images, start):
        path = folder / f"{index:06d}.png"
        if not path.exists():
            picture = Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image)
            write_atomic(path, picture.save)
