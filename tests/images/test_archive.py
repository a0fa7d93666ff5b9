"""Archives that are larger than memory: what numpy and ADM's evaluator read, and no less."""

import time
import tracemalloc
import zipfile
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from free.images.archive import Member, member_shapes, read_note, read_rows, write_npz

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
    assert member_shapes(path) == {"arr_0": (IMAGES.shape, "uint8"), "arr_1": ((11,), "int64")}


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
