"""What all commands have in common: ``~``, ``--json -``, and errors in one line."""

from __future__ import annotations

import functools
import os
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import Any

import torch
import typer

#: What torch's error for the memory of a CPU, which has no class of its own, goes by.
_CPU_IS_FULL = "DefaultCPUAllocator: can't allocate memory: "
#: The path that ``--json`` takes for the standard output.
_STDOUT = Path("-")


def command(function: Callable[..., None]) -> Callable[..., None]:
    """Let a function be one of the commands.

    Paths may begin with ``~``, which no shell expands behind ``--out=``. With ``--json -`` the
    figures are all that the standard output gets; what the command says goes to the standard error.
    """

    @functools.wraps(function)
    def run(**values: Any) -> None:
        with warnings_in_one_line(), errors_in_one_line():
            values = {name: _at_home(value) for name, value in values.items()}
            if values.get("json_path") != _STDOUT:
                function(**values)
                return
            with tempfile.TemporaryDirectory() as folder:
                path = values["json_path"] = Path(folder) / "figures.json"
                with redirect_stdout(sys.stderr):
                    function(**values)
                if path.exists():
                    typer.echo(path.read_text(encoding="utf-8"), nl=False)

    return run


def _at_home(value: Any) -> Any:
    """A path, or what may be one, with ``~`` expanded.

    Raises ValueError where the user has no home; names that only begin so stay.
    """
    if not isinstance(value, (str, Path)) or not str(value).startswith("~"):
        return value
    path = os.path.expanduser(value)  # noqa: PTH111
    if str(path).split("/", 1)[0] == "~":
        raise ValueError(f"~ in {value} must be a home folder, and the user has none: spell it out")
    return type(value)(path)


def fail(error: object, code: int = 1) -> typer.Exit:
    """Print an error in one line; the exception to raise for it."""
    typer.secho(f"error: {error}", fg="red", err=True)
    return typer.Exit(code)


@contextmanager
def warnings_in_one_line() -> Iterator[None]:
    """Print warnings without the line of code that gave them."""
    with warnings.catch_warnings():
        warnings.showwarning = lambda message, *_, **__: typer.echo(f"warning: {message}", err=True)
        yield


@contextmanager
def errors_in_one_line() -> Iterator[None]:
    """End the command with one line instead of a traceback.

    Exit code 2 for what the caller can put right in the command; 1 for a file that cannot be read
    or written, as on a full disk, for memory that is full, and for networks that return NaN or
    infinity.
    """
    try:
        yield
    except BrokenPipeError:  # of a reader that has seen enough, as ``head`` has
        raise
    except OSError as error:
        where = "" if error.filename is None else f": {error.filename}"
        raise fail(f"{error.strerror or error}{where if error.strerror else ''}") from error
    except (MemoryError, torch.OutOfMemoryError, FloatingPointError) as error:
        raise fail(str(error) or "out of memory") from error
    except RuntimeError as error:
        _, full, what = str(error).partition(_CPU_IS_FULL)
        if not full:
            raise
        raise fail(f"out of memory: {what}") from error
    except (ValueError, ImportError) as error:
        raise fail(error, 2) from error
