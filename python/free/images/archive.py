"""Archives larger than memory: ``.npz`` files that are written and read in pieces.

The same content gives the same bytes, whenever and wherever it is written. The zip's own checksums
are checked when a member is read to its end.
"""

from __future__ import annotations

import math
import zipfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, cast

import numpy as np
from numpy.lib import format as npy
from numpy.typing import DTypeLike, NDArray

from free.files import sync, writing

#: The first moment that a zip can name.
_NO_DATE = (1980, 1, 1, 0, 0, 0)
_LONGEST_NOTE = 2**16 - 1


class Member(NamedTuple):
    """An array of an archive, named as in ``numpy.load(path)[name]`` and given in pieces.

    The parts are consecutive rows: arrays of the dtype that make up the whole ``shape`` along the
    first axis.
    """

    name: str
    shape: Sequence[int]
    dtype: DTypeLike
    parts: Iterable[NDArray[Any]]


def write_npz(path: str | Path, members: Iterable[Member], note: str = "") -> None:
    """Write an uncompressed ``.npz``, holding one part at a time.

    It is written in place and flushed to the disk; not atomic. The note, at most 65535 bytes, is
    the zip's comment, which :func:`read_note` and ``unzip -z`` show. A ValueError if it is longer,
    or if parts do not make up their member.
    """
    comment = note.encode()
    if len(comment) > _LONGEST_NOTE:
        raise ValueError(f"note must be at most {_LONGEST_NOTE} bytes, got {len(comment)}")
    with writing(Path(path)), Path(path).open("wb") as file:
        with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
            archive.comment = comment
            for member in members:
                info = zipfile.ZipInfo(f"{member.name}.npy", _NO_DATE)
                info.external_attr = 0o644 << 16
                # Sizes are not known beforehand: leave room for those beyond 4 GB.
                with archive.open(info, "w", force_zip64=True) as stream:
                    _write_member(cast("BinaryIO", stream), member)
        sync(file)


def _write_member(stream: BinaryIO, member: Member) -> None:
    shape, dtype = tuple(member.shape), np.dtype(member.dtype)
    header = {"descr": npy.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
    npy.write_array_header_1_0(stream, header)
    rows = 0
    for part in member.parts:
        if part.dtype != dtype or part.shape[1:] != shape[1:]:
            raise ValueError(
                f"parts of {member.name} must be {dtype} of shape {['rows', *shape[1:]]}, "
                f"got {part.dtype} of shape {list(part.shape)}"
            )
        stream.write(np.ascontiguousarray(part).data.cast("B") if part.size else b"")
        rows += len(part)
    if rows != shape[0]:
        raise ValueError(f"parts of {member.name} must have {shape[0]} rows together, got {rows}")


def read_note(path: str | Path) -> str:
    """Read the note of an archive; an OSError or BadZipFile if there is no such archive."""
    with zipfile.ZipFile(path) as archive:
        return archive.comment.decode(errors="replace")


def member_shapes(path: str | Path) -> dict[str, tuple[tuple[int, ...], np.dtype[Any]]]:
    """Read the shape and dtype of each array of an archive, and none of the arrays.

    Raises OSError, BadZipFile or ValueError if there is no such archive, or it holds other things.
    """
    shapes = {}
    with zipfile.ZipFile(path) as archive:
        for member in archive.namelist():
            with archive.open(member) as stream:
                shapes[member.removesuffix(".npy")] = _read_header(cast("BinaryIO", stream))
    return shapes


def read_rows(path: str | Path, name: str, rows: int) -> Iterator[NDArray[Any]]:
    """Read an array of an archive, ``rows`` rows at a time; the last part may be shorter.

    Raises OSError, BadZipFile, KeyError, ValueError or EOFError if there is no such array, or it
    is damaged, which shows at its end at the latest.
    """
    with zipfile.ZipFile(path) as archive, archive.open(f"{name}.npy") as stream:
        shape, dtype = _read_header(cast("BinaryIO", stream))
        for start in range(0, shape[0], rows):
            part = (min(rows, shape[0] - start), *shape[1:])
            data = stream.read(math.prod(part) * dtype.itemsize)
            if len(data) != math.prod(part) * dtype.itemsize:
                raise EOFError(f"{name} in {path} ends early")
            yield np.frombuffer(data, dtype).reshape(part)


def _read_header(stream: BinaryIO) -> tuple[tuple[int, ...], np.dtype[Any]]:
    version = npy.read_magic(stream)
    if version != (1, 0):
        raise ValueError(f"array must have a header of version 1.0, got {version}")
    shape, fortran_order, dtype = npy.read_array_header_1_0(stream)
    if fortran_order or dtype.hasobject:
        raise ValueError(f"array must be numbers in C order, got {dtype}")
    return shape, dtype
