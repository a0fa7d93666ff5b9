"""Checkpoints of a run: written so that one is always whole, read without running anything."""

from __future__ import annotations

import fcntl
import json
import os
import pickle
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn

from free.files import write_atomic, write_json
from free.machine import machine
from free.training.dataset.sets import Skipped
from free.training.parallel import Ranks

__all__ = [
    "CONFIG",
    "FILE",
    "SKIPPED",
    "finish_record",
    "locked",
    "misfit",
    "read_checkpoint",
    "sweep_leftovers",
    "write_checkpoint",
    "write_record",
    "write_skipped",
]

#: Name of the checkpoint in the folder of a run.
FILE = "state.pt"

#: Characters of a value in a message.
_LONGEST = 60

_PARTS = {"settings", "step", "weights", "journal"}


def write_checkpoint(folder: Path, state: dict[str, Any]) -> None:
    """Write ``state`` to the folder's checkpoint.

    Parameters
    ----------
    folder : Path
    state : dict
        Tensors and plain values under the names that :func:`read_checkpoint` asks for.

    Raises
    ------
    OSError
        If it cannot be written, as on a full disk; the one before is still there.
    """

    def write(path: Path) -> None:
        with path.open("wb") as file:
            torch.save(state, file)
            file.flush()
            os.fsync(file.fileno())  # the name must not be on the disk before the content

    try:
        write_atomic(folder / FILE, write)
    except (OSError, RuntimeError) as error:  # torch's writer has its own words for a full disk
        cause = error if isinstance(error, OSError) else (error.__context__ or error)
        kept = "the one before it is whole" if (folder / FILE).exists() else "there is none before"
        raise OSError(
            f"the checkpoint of step {state['step']} could not be written to {folder / FILE} "
            f"({kept}): {cause}"
        ) from error


def read_checkpoint(
    folder: Path, settings: Mapping[str, Any], model: nn.Module
) -> dict[str, Any] | None:
    """The folder's checkpoint, if it has one.

    Parameters
    ----------
    folder : Path
    settings : mapping
        Those of this run; the checkpoint must have been written under the same.
    model : nn.Module
        Whose weights it must hold.

    Returns
    -------
    dict or None
        What :func:`write_checkpoint` was given, its tensors on the CPU.

    Raises
    ------
    ValueError
        If it is damaged, or of another run: says in what.
    """
    path = folder / FILE
    if not path.is_file():
        return None
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        if not isinstance(state, dict) or set(state) != _PARTS:
            raise ValueError("it does not have the parts of a checkpoint of this version")
    except (OSError, RuntimeError, ValueError, EOFError, pickle.UnpicklingError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise ValueError(f"folder must hold a checkpoint that loads, got {path}: {reason}") from (
            error
        )
    differences = misfit(settings, state["settings"]) or _other_weights(
        model, state["weights"]["model"]
    )
    if differences:
        raise ValueError(
            "folder must be empty or hold a run of the same settings, "
            f"got {path} with {differences}"
        )
    return state


def misfit(settings: Mapping[str, Any], stored: Mapping[str, Any]) -> str:
    """How stored settings differ, such as ``"seed 1 (now 0)"``; "" if they do not.

    Settings that are dicts, such as ``data``, are compared name by name.
    """
    settings, stored = _flat(settings), _flat(stored)
    names = [name for name in {**settings, **stored} if name not in settings
             or name not in stored or settings[name] != stored[name]]  # fmt: skip
    return ", ".join(
        f"{name} {_shown(stored.get(name, 'unset'))} (now {_shown(settings.get(name, 'unset'))})"
        for name in names
    )


def _flat(settings: Mapping[str, Any]) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in settings.items():
        parts = value if isinstance(value, dict) else None
        flat |= {f"{name}.{part}": one for part, one in parts.items()} if parts else {name: value}
    return flat


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 3]}..."


def _other_weights(model: nn.Module, stored: Mapping[str, Any]) -> str:
    """How stored weights are those of another model, by one example; "" if they are not."""
    own = {name: list(value.shape) for name, value in model.state_dict().items()}
    other = {name: list(value.shape) for name, value in stored.items()}
    for name in {**own, **other}:
        if own.get(name) != other.get(name):
            return (
                f"the weights of another model: {name} {other.get(name, 'missing')} "
                f"(now {own.get(name, 'none')})"
            )
    return ""


def sweep_leftovers(folder: Path) -> None:
    """Remove what a process that was killed while writing has left beside the checkpoint."""
    for leftover in folder.glob(f".{Path(FILE).stem}-*{Path(FILE).suffix}"):
        leftover.unlink(missing_ok=True)


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Keep other runs out of ``folder``, which is made, until the end; or until this process dies.

    Raises
    ------
    ValueError
        If another run has it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise ValueError(
                f"folder must not be in use by another run, got {folder}, which is locked"
            ) from error
        yield


CONFIG, SKIPPED = "config.json", "skipped.json"


def write_record(folder: Path, settings: dict[str, Any], step: int, ranks: Ranks) -> None:
    """Write ``config.json`` when a run begins, or add to it when one goes on.

    Parameters
    ----------
    folder : Path
    settings : dict
        All of them, as JSON values.
    step : int
        Where it goes on; 0 begins it.
    ranks : Ranks
    """
    path = folder / CONFIG
    if not step:  # of a run that came to nothing
        path.unlink(missing_ok=True)
        (folder / SKIPPED).unlink(missing_ok=True)
    before = _stored(path)
    start = {
        "step": step,
        "command": sys.argv,
        "processes": ranks.world,
        "device": str(ranks.device.type),
        **machine(),
    }
    write_json(path, {**before, **settings, "starts": [*before.get("starts", []), start]})


def finish_record(folder: Path, record: dict[str, Any]) -> None:
    """Add what has come of a run to ``config.json``."""
    write_json(folder / CONFIG, {**_stored(folder / CONFIG), "result": record})


def write_skipped(folder: Path, skipped: list[Skipped]) -> int:
    """Add files to ``skipped.json``, and their number to ``config.json``.

    Parameters
    ----------
    folder : Path
    skipped : list of dict
        Each with ``file`` and ``reason``; those that the list has already are not added again.

    Returns
    -------
    int
        How many there are now.
    """
    path = folder / SKIPPED
    known = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else []
    files = {one["file"]: one for one in [*known, *skipped]}
    if not path.is_file() or len(files) > len(known):
        write_json(path, list(files.values()))
        write_json(folder / CONFIG, {**_stored(folder / CONFIG), "skipped": len(files)})
    return len(files)


def _stored(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
