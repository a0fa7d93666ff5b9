"""Archives that are larger than memory: what numpy and ADM's evaluator read, and no less."""

import os
import time
import tracemalloc
import zipfile
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from free.images.archive import (
    Member,
    array_names,
    read_array,
    read_headers,
    read_note,
    read_rows,
    write_npz,
)

IMAGES = np.random.default_rng(0).integers(0, 256, (11, 4, 6, 3), np.uint8)
LABELS = np.arange(11)


def _members(rows: int = 4) -> list[Member]:
    parts = (IMAGES[start : start + rows] for start in range(0, 11, rows))
    return [Member("arr_0", IMAGES.shape, np.uint8, parts), Member("arr_1", (11,), int, [LABELS])]


@pytest.mark.parametrize("rows", [1, 4, 11])
def test_numpy_reads_it(tmp_path: Path, rows: int) -> None:
    path = tmp_path / "x.npz"
    write_npz(path, _members(rows))
    with np.load(path, allow_pickle=False) as archive:
        assert archive.files == ["arr_0", "arr_1"]
        np.testing.assert_array_equal(archive["arr_0"], IMAGES)
        np.testing.assert_array_equal(archive["arr_1"], LABELS)
        assert archive["arr_0"].dtype == np.uint8
    assert array_names(path) == ["arr_0", "arr_1"]
    assert read_headers(path, array_names(path)) == {
        "arr_0": (IMAGES.shape, "uint8", False),
        "arr_1": ((11,), "int64", False),
    }


def test_as_adms_evaluator_reads_it(tmp_path: Path) -> None:
    """Header of version 1.0, then plain rows; the evaluator seeks nothing and knows no other."""
    write_npz(tmp_path / "x.npz", _members())
    with zipfile.ZipFile(tmp_path / "x.npz") as archive, archive.open("arr_0.npy") as stream:
        assert np.lib.format.read_magic(stream) == (1, 0)
        shape, fortran, dtype = np.lib.format.read_array_header_1_0(stream)
        assert (shape, fortran, dtype) == (IMAGES.shape, False, np.uint8)
        assert stream.read() == IMAGES.tobytes()


def test_the_same_content_is_the_same_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_npz(tmp_path / "x.npz", _members(), "note")
    later = time.localtime(time.time() + 1e6)
    monkeypatch.setattr(time, "localtime", lambda *_: later)
    write_npz(tmp_path / "y.npz", _members(3), "note")
    assert (tmp_path / "x.npz").read_bytes() == (tmp_path / "y.npz").read_bytes()


def test_it_is_written_and_read_in_little_memory(tmp_path: Path) -> None:
    """200 MB through parts of 2 MB."""
    path, part = tmp_path / "x.npz", np.zeros((10, 256, 256, 3), np.uint8)
    tracemalloc.start()
    try:
        parts = (part.copy() for _ in range(100))
        write_npz(path, [Member("arr_0", (1000, 256, 256, 3), np.uint8, parts)])
        assert sum(len(part) for part in read_rows(path, "arr_0", 10)) == 1000
        assert 2e6 < tracemalloc.get_traced_memory()[1] < 40e6
    finally:
        tracemalloc.stop()
    assert path.stat().st_size > 1000 * 256 * 256 * 3
    path.unlink()


def test_note(tmp_path: Path) -> None:
    write_npz(tmp_path / "x.npz", _members(), '{"a": "é"}')
    assert read_note(tmp_path / "x.npz") == '{"a": "é"}'
    with pytest.raises(ValueError, match=r"note must be at most 65535 bytes, got 65536"):
        write_npz(tmp_path / "y.npz", [], 65536 * "x")


def test_read_rows(tmp_path: Path) -> None:
    write_npz(tmp_path / "x.npz", _members())
    for rows in (1, 4, 20):
        parts = list(read_rows(tmp_path / "x.npz", "arr_0", rows))
        assert {len(part) for part in parts[:-1]} <= {rows}
        np.testing.assert_array_equal(np.concatenate(parts), IMAGES)


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
@pytest.mark.parametrize(
    "value", [np.float64(3), np.arange(6.0), np.eye(3, 4), np.asfortranarray(np.eye(3, 4)), IMAGES]
)
def test_arrays_of_numpy_are_read(tmp_path: Path, save: Any, value: Any) -> None:
    save(tmp_path / "x.npz", a=value, b=np.array([{}]), c=np.zeros(5, "S3"))
    read = read_array(tmp_path / "x.npz", "a")
    np.testing.assert_array_equal(read, value)
    assert read.flags.writeable
    with pytest.raises(ValueError, match="b must be numbers, got objects, which could run code"):
        read_array(tmp_path / "x.npz", "b")


@pytest.mark.parametrize(
    ("value", "what"),
    [(np.float64(3), "a single number"), (np.asfortranarray(np.eye(3, 4)), "in Fortran order")],
)
def test_what_has_no_rows(tmp_path: Path, value: Any, what: str) -> None:
    np.savez(tmp_path / "x.npz", a=value)
    with pytest.raises(ValueError, match=f"a must have rows that lie together, got one {what}"):
        list(read_rows(tmp_path / "x.npz", "a", 2))


def _declare(path: Path, shape: str, content: bytes = b"") -> Path:
    """An archive whose array says of itself what it likes."""
    header = f"{{'descr': '|u1', 'fortran_order': False, 'shape': {shape}, }}".ljust(117) + "\n"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.npy", b"\x93NUMPY\x01\x00\x76\x00" + header.encode() + content)
    return path


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        (f"({2**70},)", rf"a must have the {2**70} bytes it says, got 0"),
        ("(-1,)", r"must be an array, got one of shape \[-1\]"),
        ("(3", "must be an array, got a header that cannot be read"),
        ("-" * 90 + "1", "must be an array, got a header that cannot be read"),
        ("(" * 90, "must be an array, got a header that cannot be read"),
    ],
)
def test_what_an_array_says_is_looked_at_first(tmp_path: Path, shape: str, message: str) -> None:
    path = _declare(tmp_path / "x.npz", shape)
    for read in (lambda: read_array(path, "a"), lambda: list(read_rows(path, "a", 2))):
        with pytest.raises((ValueError, EOFError), match=message):
            read()


def test_damaged_archives_never_do_worse_than_an_error(tmp_path: Path) -> None:
    path = tmp_path / "x.npz"
    np.savez_compressed(path, a=IMAGES, b=LABELS)
    whole, random = path.read_bytes(), np.random.default_rng(0)
    places = [*range(200), *range(len(whole) - 250, len(whole))]  # headers and directory
    for _ in range(300):
        damaged = bytearray(whole)
        for place in random.choice(places, 2):
            damaged[place] = random.integers(256)
        path.write_bytes(damaged)
        with suppress(OSError, zipfile.BadZipFile, EOFError, KeyError, ValueError):
            read_headers(path, array_names(path))
            read_array(path, "b")
            list(read_rows(path, "a", 4))


def test_a_pipe_is_no_archive(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "x.npz")
    for read in (array_names, read_note):
        with pytest.raises(OSError, match="it is not a regular file"):
            read(tmp_path / "x.npz")


def test_damage_shows(tmp_path: Path) -> None:
    path = tmp_path / "x.npz"
    write_npz(path, _members())
    whole = path.read_bytes()
    path.write_bytes(whole[:300] + bytes([whole[300] ^ 1]) + whole[301:])
    with pytest.raises(zipfile.BadZipFile, match="Bad CRC-32"):
        list(read_rows(path, "arr_0", 4))
    path.write_bytes(whole[:-40])
    with pytest.raises(zipfile.BadZipFile):
        list(read_rows(path, "arr_0", 4))


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ([IMAGES[:4]], "parts of arr_0 must have 11 rows together, got 4"),
        ([IMAGES, IMAGES[:1]], "parts of arr_0 must have 11 rows together, got 12"),
        ([IMAGES.astype(np.float32)], r"parts of arr_0 must be uint8 of shape .* got float32"),
        ([IMAGES[:, :2]], r"got uint8 of shape \[11, 2, 6, 3\]"),
    ],
)
def test_parts_must_fit(tmp_path: Path, parts: list[NDArray[np.uint8]], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        write_npz(tmp_path / "x.npz", [Member("arr_0", IMAGES.shape, np.uint8, parts)])


def test_views_are_written_in_order(tmp_path: Path) -> None:
    view = IMAGES.transpose(0, 2, 1, 3)
    write_npz(tmp_path / "x.npz", [Member("a", view.shape, np.uint8, [view])])
    np.testing.assert_array_equal(np.load(tmp_path / "x.npz")["a"], view)
