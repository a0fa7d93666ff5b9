"""Files appear whole or not at all, and JSON is read with errors that say what is wrong."""

import errno
import json
import os
from pathlib import Path

import numpy as np
import pytest

from free import files
from free.files import (
    cache_folder,
    check_writable,
    digest,
    locked,
    read_json,
    shown,
    sync,
    writable_cache,
    write_atomic,
    write_json,
)


def test_a_failed_write_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "new" / "x.json"
    write_json(path, {"a": 1})

    def fail(temporary: Path) -> None:
        temporary.write_text("half")
        raise OSError("disk full")

    with pytest.raises(OSError, match=rf"disk full.*{path}"):
        write_atomic(path, fail)
    assert read_json(path, "record") == {"a": 1}
    assert list(path.parent.iterdir()) == [path]
    write_json(path, [1])
    assert read_json(path, "files", list) == [1]


def test_numbers_of_numpy_are_json(tmp_path: Path) -> None:
    write_json(tmp_path / "x.json", {"window": np.int64(4), "w": np.float32(0.5)})
    assert read_json(tmp_path / "x.json", "record") == {"window": 4, "w": 0.5}
    with pytest.raises(TypeError, match="records must be JSON values, got ndarray"):
        write_json(tmp_path / "x.json", np.zeros(2))


def test_nan_is_not_json(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(tmp_path / "x.json", float("nan"))


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (None, "FileNotFoundError"),
        (b"{", "JSONDecodeError"),
        (b"\xff" * 1000, "it must be UTF-8, got invalid start byte at byte 0"),
        (b"[" * 100_000, "it must be nested at most 64 deep"),
        (b'{"a": ' + b"[" * 64 + b"]" * 64 + b"}", "it must be nested at most 64 deep"),
        (b"[1]", "got list"),
        (json.dumps({"a": "long" * 30}).encode(), "it must have at most 100 bytes"),
    ],
)
def test_json_that_cannot_be_read(tmp_path, content, reason, monkeypatch) -> None:
    monkeypatch.setattr(files, "_LARGEST_JSON", 100 if "100 bytes" in reason else 10**6)
    if content is not None:
        (tmp_path / "x.json").write_bytes(content)
    message = rf"^manifest .*x\.json is missing or .*: .*{reason}"
    with pytest.raises(ValueError, match=message) as caught:
        read_json(tmp_path / "x.json", "manifest")
    assert len(str(caught.value)) < 500


def test_json_within_the_bounds(tmp_path: Path) -> None:
    deep = {"a": [[["[" * 1000]]], "b": json.loads("[" * 63 + "0" + "]" * 63)}
    (tmp_path / "x.json").write_text("\ufeff" + json.dumps(deep), encoding="utf-8")
    assert read_json(tmp_path / "x.json", "manifest") == deep


def test_a_pipe_is_no_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "x.json")
    with pytest.raises(ValueError, match=r"x\.json is missing or .*it is not a regular file"):
        read_json(tmp_path / "x.json", "manifest")  # without a writer it would wait for ever


def test_what_a_file_says_is_cut_in_messages() -> None:
    assert shown("ab") == "'ab'"
    assert len(shown(["x" * 1000])) == 200
    assert shown({"a": 1234567890}, 9) == "{'a': ..."


def test_check_writable(tmp_path: Path) -> None:
    assert check_writable(tmp_path / "a" / "b.png", "--out") == tmp_path / "a" / "b.png"
    os.mkfifo(tmp_path / "fifo")  # it is left alone
    for path in (tmp_path, tmp_path / "fifo"):
        message = r"--out must be a file that can be written, got .*: it is not a regular file"
        with pytest.raises(ValueError, match=message):
            check_writable(path, "--out")


def test_links_are_followed(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "real.json")
    write_json(tmp_path / "link", 1)
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real.json").read_text() == "1\n"
    assert digest(tmp_path / "link").startswith("4355a46b")  # of its content


def test_folder_follows_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("FREE_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder("x") == tmp_path / "free" / "x"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache_folder("x") == Path.home() / ".cache" / "free" / "x"
    monkeypatch.setenv("FREE_CACHE", str(tmp_path / "own"))
    assert cache_folder("x") == tmp_path / "own" / "x" == writable_cache("x")
    assert (tmp_path / "own" / "x").is_dir()


def test_a_user_without_a_cache(no_cache: str) -> None:
    with pytest.raises(ValueError, match="FREE_CACHE must name a folder that can be .*" + no_cache):
        writable_cache("x")


def _refuse(*_: object) -> None:
    raise OSError(errno.ENOSYS, "Function not implemented")


@pytest.mark.parametrize(
    ("name", "what", "work"),
    [
        ("pathlib.Path.chmod", "file modes", lambda path: write_json(path, {})),
        ("fcntl.flock", "locks", lambda path: _hold(path)),
        ("os.fsync", "syncs", lambda path: _sync(path)),
    ],
)
def test_file_systems_that_refuse(name, what, work, tmp_path, monkeypatch) -> None:
    """As object stores and clusters do: the work is done, with one line."""
    monkeypatch.setattr(name, _refuse)
    with pytest.warns(
        UserWarning, match=f"no {what} in {tmp_path}, went on without: Function not impl"
    ) as warned:
        work(tmp_path / "x.json")
    assert len(warned) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["x.json"]


def _hold(path: Path) -> None:
    with locked(path, "busy"):
        assert path.exists()


def _sync(path: Path) -> None:
    with path.open("w") as file:
        sync(file)


def test_a_disk_that_fails_to_sync(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr("os.fsync", fail)
    with pytest.raises(OSError, match="Input/output error"):
        _sync(tmp_path / "x.json")


def test_a_lock_keeps_others_out(tmp_path: Path) -> None:
    lock = tmp_path / "lock"
    with locked(lock, "busy"), pytest.raises(ValueError, match="^busy$"), locked(lock, "busy"):
        pass
    _hold(tmp_path / "lock")


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(FileExistsError, match="/file'$"):
        write_json(tmp_path / "file" / "x.json", {})
