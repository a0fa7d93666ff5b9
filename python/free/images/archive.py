"""Archives larger than memory: ``.npz`` files that are written and read in pieces.

The same content gives the same bytes, whenever and wherever it is written. The zip's own checksums
are checked when a member is read to its end.
"""

from __future__ import annotations

import lzma
import math
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, BinaryIO, NamedTuple, cast

import numpy as np
from numpy.lib import format as npy
from numpy.typing import DTypeLike, NDArray

from free.files import check_regular, sync, writing

#: The first moment that a zip can name.
_NO_DATE = (1980, 1, 1, 0, 0, 0)
_LONGEST_NOTE = 2**16 - 1
#: Bytes that are read at a time.
_BLOCK = 1 << 20


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
    with _opened(path) as archive:
        return archive.comment.decode(errors="replace")


class Header(NamedTuple):
    """What an array of an archive says of itself; ``fortran_order`` only where it matters."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    fortran_order: bool = False

    @property
    def nbytes(self) -> int:
        """Bytes of the array's values."""
        return math.prod(self.shape) * self.dtype.itemsize


def array_names(path: str | Path) -> list[str]:
    """Names of an archive's arrays, none of which is looked at; other files are passed over.

    Raises OSError, BadZipFile or ValueError if there is no such archive, or it has no arrays.
    """
    with _opened(path) as archive:
        members = archive.namelist()
    names = [member.removesuffix(".npy") for member in members if member.endswith(".npy")]
    if not names:
        raise ValueError("it has no arrays")
    return names


def read_headers(path: str | Path, names: Iterable[str]) -> dict[str, Header]:
    """Read what these arrays of an archive are, and none of them.

    Raises OSError, BadZipFile, KeyError or ValueError if there is no such archive or array, or it
    is damaged.
    """
    headers = {}
    with _opened(path) as archive:
        for name in names:
            with archive.open(f"{name}.npy") as stream:
                headers[name] = _read_header(stream, name)
    return headers


def read_array(path: str | Path, name: str) -> NDArray[Any]:
    """Read an array of an archive whole: look at its size first, with :func:`read_headers`.

    Errors are those of :func:`read_rows`.
    """
    with _array(path, name) as (header, stream):
        values = np.empty(header.nbytes, np.uint8)
        for start in range(0, header.nbytes, _BLOCK):
            size = min(_BLOCK, header.nbytes - start)
            values[start : start + size] = np.frombuffer(_read(stream, size, name), np.uint8)
    order: Any = "F" if header.fortran_order else "C"
    return np.ndarray(header.shape, header.dtype, values.data, order=order)


def read_rows(path: str | Path, name: str, rows: int) -> Iterator[NDArray[Any]]:
    """Read an array of an archive, ``rows`` rows at a time; the last part may be shorter.

    Raises OSError, BadZipFile, KeyError, ValueError or EOFError if there is no such array, it has
    no rows that lie together, or it is damaged, which shows at its end at the latest.
    """
    with _array(path, name) as (header, stream):
        if not header.shape or header.fortran_order:
            what = "in Fortran order" if header.shape else "a single number"
            raise ValueError(f"{name} must have rows that lie together, got one {what}")
        for start in range(0, header.shape[0], rows):
            part = (min(rows, header.shape[0] - start), *header.shape[1:])
            data = _read(stream, math.prod(part) * header.dtype.itemsize, name)
            yield np.frombuffer(data, header.dtype).reshape(part)


@contextmanager
def _opened(path: str | Path) -> Iterator[zipfile.ZipFile]:
    """A zip; whatever its decoders raise, it is damaged."""
    check_regular(path)
    try:
        with zipfile.ZipFile(path) as archive:
            yield archive
    except (RuntimeError, zlib.error, lzma.LZMAError) as error:  # encrypted, of an unknown method
        raise zipfile.BadZipFile(str(error)) from error


@contextmanager
def _array(path: str | Path, name: str) -> Iterator[tuple[Header, IO[bytes]]]:
    """An array's header and its values, whose number is what it says."""
    with _opened(path) as archive, archive.open(f"{name}.npy") as stream:
        header = _read_header(stream, name)
        if header.dtype.hasobject:
            raise ValueError(f"{name} must be numbers, got objects, which could run code")
        # Before anything is inflated: an array may say that it is larger than any memory.
        size = archive.getinfo(f"{name}.npy").file_size - stream.tell()
        if size != header.nbytes:
            raise EOFError(f"{name} must have the {header.nbytes} bytes it says, got {size}")
        yield header, stream
        stream.read(1)  # the end, where the checksum is looked at


def _read(stream: IO[bytes], size: int, name: str) -> bytes:
    data = stream.read(size)
    if len(data) != size:
        raise EOFError(f"{name} ends early")
    return data


def _read_header(stream: IO[bytes], name: str) -> Header:
    try:
        version = npy.read_magic(stream)
        read = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
        shape, fortran_order, dtype = read(stream)
    except (zipfile.BadZipFile, zlib.error, lzma.LZMAError):
        raise
    except Exception as error:  # it is parsed as Python is
        raise ValueError(f"{name} must be an array, got a header that cannot be read") from error
    if min(shape, default=0) < 0:
        raise ValueError(f"{name} must be an array, got one of shape {list(shape)}")
    return Header(shape, dtype, fortran_order and len(shape) > 1)
