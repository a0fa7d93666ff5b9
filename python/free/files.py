"""Files: JSON read with errors that name it, and writing so that nobody reads half of one."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

#: Labels of a million files take a quarter of it.
_LARGEST_JSON = 256 << 20


def cache_folder() -> Path:
    """``$FREE_CACHE``, or ``free`` in the user's cache folder."""
    if os.environ.get("FREE_CACHE"):
        return Path(os.environ["FREE_CACHE"])
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "free"


def write_atomic(path: str | Path, write: Callable[[Path], object]) -> None:
    """Call ``write(temporary)`` beside ``path``, then rename over it. The folder is created.

    ``write`` writes the whole file to the path it is given. The temporary name keeps the suffix,
    because image and weight writers choose their format by it.
    """
    path = Path(path).resolve()  # a link stays, what it points to is written
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.stem}-", suffix=path.suffix)
    os.close(handle)
    temporary = Path(name)
    try:
        write(temporary)
        # mkstemp makes the file private; give it the permissions any new file would have.
        mask = os.umask(0)
        os.umask(mask)
        temporary.chmod(0o666 & ~mask)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def read_json(path: str | Path, what: str, kind: type = dict) -> Any:
    """Read a JSON file.

    Errors begin with ``what`` the file should hold, such as ``"manifest"``; ``kind`` is that of the
    value at the top. Raises ValueError naming the file, if it cannot be read, is larger than 256
    MiB, is no JSON or is nested more deeply than Python recurses, or another kind of value is at
    the top.
    """
    path = Path(path)
    try:
        if path.stat().st_size > _LARGEST_JSON:
            raise ValueError(f"it must have at most {_LARGEST_JSON} bytes")
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ValueError(f"{what} {path} is missing or malformed: {error!r}") from error
    if not isinstance(value, kind):
        raise ValueError(f"{what} {path} is missing or malformed: got {type(value).__name__}")
    return value


def write_json(path: str | Path, value: Any) -> None:
    """Write ``value`` as indented JSON, atomically; NaN is refused."""
    text = json.dumps(value, indent=2, allow_nan=False) + "\n"
    write_atomic(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))


def check_writable(path: str | Path, argument: str) -> Path:
    """Make sure that a file can be created at ``path``, before long work is done for it.

    Raises ValueError naming ``argument`` and the reason, if the folder cannot be made or written
    to.
    """
    path = Path(path)
    try:
        if path.exists() and not path.is_file():
            raise OSError("it is not a regular file")
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path.parent):
            pass
    except OSError as error:
        reason = error.strerror or error
        raise ValueError(
            f"{argument} must be a file that can be written, got {path}: {reason}"
        ) from error
    return path


def digest(path: str | Path) -> str:
    """SHA-256 of a file's content, in hexadecimal."""
    value = hashlib.sha256()
    with Path(path).open("rb") as file:
        while block := file.read(1 << 20):
            value.update(block)
    return value.hexdigest()
