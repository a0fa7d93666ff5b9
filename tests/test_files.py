"""Files appear whole or not at all."""

import json
from pathlib import Path

import pytest

from free.files import check_writable, write_atomic, write_json


def test_a_failed_write_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "new" / "x.json"
    write_json(path, {"a": 1})

    def fail(temporary: Path) -> None:
        temporary.write_text("half")
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        write_atomic(path, fail)
    assert json.loads(path.read_text()) == {"a": 1}
    assert list(path.parent.iterdir()) == [path]


def test_nan_is_not_json(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(tmp_path / "x.json", float("nan"))


def test_check_writable(tmp_path: Path) -> None:
    assert check_writable(tmp_path / "a" / "b.png", "--out") == tmp_path / "a" / "b.png"
    with pytest.raises(ValueError, match=r"--out must be a file that can be written, got .*folder"):
        check_writable(tmp_path, "--out")
