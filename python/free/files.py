"""Files: JSON read within bounds, and writing so that nobody reads half of a file.

All JSON of the package, whoever wrote it, is read here.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import stat
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

#: Bytes of a record, such as a configuration: in memory JSON may take thirty times as much.
_LARGEST_JSON = 16 << 20
#: Brackets within brackets. What this package writes has ten at most.
_DEEPEST_JSON = 64
#: Characters of a foreign value in a message.
_LONGEST = 200


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


def check_regular(path: str | Path) -> None:
    """Raise an OSError unless there is a regular file: to open a pipe would wait for its writer."""
    if not stat.S_ISREG(Path(path).stat().st_mode):
        raise OSError(errno.EINVAL, "it is not a regular file", str(path))


def read_text(path: str | Path, largest: int) -> str:
    """Read a regular file of UTF-8, with or without a byte-order mark.

    Raises OSError if it cannot be read, ValueError if it is of more than ``largest`` bytes or is no
    UTF-8.
    """
    check_regular(path)
    with Path(path).open("rb") as file:
        content = file.read(largest + 1)
    if len(content) > largest:
        raise ValueError(f"it must have at most {largest} bytes")
    return _decoded(content).removeprefix("\ufeff")


def _decoded(content: bytes) -> str:
    try:
        return content.decode()
    except UnicodeDecodeError as error:  # it would bring the whole content into the message
        raise ValueError(f"it must be UTF-8, got {error.reason} at byte {error.start}") from None


def parse_json(text: str | bytes, pairs: Callable[[list[Any]], Any] | None = None) -> Any:
    """The value of a JSON text; ``pairs`` makes one of an object's names and values, if not a dict.

    Raises ValueError if it is no JSON, or nested more than 64 deep: most of what could be done with
    such a value would end in a RecursionError.
    """
    text = _decoded(text) if isinstance(text, bytes) else text
    deep = ValueError(f"it must be nested at most {_DEEPEST_JSON} deep")
    try:
        value = json.loads(text, object_pairs_hook=pairs)
    except RecursionError:
        raise deep from None
    level = [value]
    for _ in range(_DEEPEST_JSON):
        level = [inner for outer in level for inner in _containers(outer)]
    if level:
        raise deep
    return value


def _containers(value: Any) -> list[Any]:
    """The objects and lists that lie in one."""
    inside = value.values() if isinstance(value, dict) else value
    kinds = (dict, list, tuple)
    return [one for one in inside if isinstance(one, kinds)] if isinstance(value, kinds) else []


def shown(value: object, longest: int = _LONGEST) -> str:
    """A value's ``repr`` for a message, cut where it is long: files may hold anything."""
    return cut(repr(value), longest)


def cut(text: str, longest: int = _LONGEST) -> str:
    """A text of at most ``longest`` characters; dots stand for the rest."""
    return text if len(text) <= longest else f"{text[: longest - 3]}..."


def read_json(
    path: str | Path,
    what: str,
    kind: type = dict,
    *,
    largest: int | None = None,
    pairs: Callable[[list[Any]], Any] | None = None,
) -> Any:
    """Read a JSON file.

    Errors begin with ``what`` the file should hold, such as ``"manifest"``; ``kind`` is that of the
    value at the top; ``pairs`` is that of :func:`parse_json`. Raises ValueError naming the file, if
    it cannot be read, is no regular file, has more than ``largest`` bytes (16 MiB by default), is
    no JSON or is nested more than 64 deep, or another kind of value is at the top.
    """
    try:
        value = parse_json(read_text(path, largest or _LARGEST_JSON), pairs)
    except (OSError, ValueError) as error:
        raise ValueError(f"{what} {path} is missing or malformed: {shown(error)}") from error
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
    """SHA-256 of a regular file's content, in hexadecimal."""
    check_regular(path)
    value = hashlib.sha256()
    with Path(path).open("rb") as file:
        while block := file.read(1 << 20):
            value.update(block)
    return value.hexdigest()
