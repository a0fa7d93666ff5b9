"""Files appear whole or not at all, and JSON is read with errors that say what is wrong."""

import json
import os
from pathlib import Path

import pytest

from free import files
from free.files import (
    cache_folder,
    check_writable,
    digest,
    read_json,
    shown,
    write_atomic,
    write_json,
)


def test_a_failed_write_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "new" / "x.json"
    write_json(path, {"a": 1})

    def fail(temporary: Path) -> None:
        temporary.write_text("half")
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        write_atomic(path, fail)
    assert read_json(path, "record") == {"a": 1}
    assert list(path.parent.iterdir()) == [path]
    write_json(path, [1])
    assert read_json(path, "files", list) == [1]


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
    assert cache_folder() == tmp_path / "free"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache_folder() == Path.home() / ".cache" / "free"
    monkeypatch.setenv("FREE_CACHE", str(tmp_path / "own"))
    assert cache_folder() == tmp_path / "own"
