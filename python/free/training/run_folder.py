"""The folder of a run: its checkpoint, its record, and the lock that keeps others out.

A checkpoint is always whole, whenever the process that writes it is killed, and reading one runs
no code. What is in a checkpoint, only the trainer knows.
"""

from __future__ import annotations

import fcntl
import json
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn

from free.files import cut, read_json, shown, write_atomic, write_json
from free.machine import machine
from free.models.checkpoints.tensors import load_plain
from free.training.dataset.sets import Skipped
from free.training.parallel import Ranks

#: Characters of a value in a message.
_LONGEST = 60

#: What a checkpoint is made of, and of what kind each part is.
_PARTS = {"settings": dict, "step": int, "weights": dict, "journal": dict}
#: Bytes of a record of a run, which may name every file that could not be used.
_LARGEST_RECORD = 256 << 20


class RunFolder:
    """The files of a run that the next process goes on from.

    ``checkpoint``, ``config`` and ``skipped`` are the paths of ``state.pt``, ``config.json`` and
    ``skipped.json``.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.checkpoint = path / "state.pt"
        self.config = path / "config.json"
        self.skipped = path / "skipped.json"

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other runs out of the folder, which is created, until the end.

        The lock goes with the process, however that ends. A ValueError if another run has it.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        with (self.path / ".lock").open("a") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise ValueError(
                    f"folder must not be in use by another run, got {self.path}, which is locked"
                ) from error
            yield

    def write_checkpoint(self, state: dict[str, Any]) -> None:
        """Write ``settings``, ``step``, ``weights`` and ``journal``: tensors and plain values.

        An OSError if that fails, as on a full disk; the one before is still there.
        """

        def write(path: Path) -> None:
            with path.open("wb") as file:
                torch.save(state, file)
                file.flush()
                os.fsync(file.fileno())  # the name must not be on the disk before the content

        try:
            write_atomic(self.checkpoint, write)
        except (OSError, RuntimeError) as error:  # torch's writer has its own words for a full disk
            cause = error if isinstance(error, OSError) else (error.__context__ or error)
            whole = self.checkpoint.exists()
            before = "the one before it is whole" if whole else "there is none before"
            raise OSError(
                f"the checkpoint of step {state['step']} could not be written to "
                f"{self.checkpoint} ({before}): {cause}"
            ) from error

    def read_checkpoint(self) -> dict[str, Any] | None:
        """What :meth:`write_checkpoint` was given, its tensors on the CPU; None if there is none.

        A ValueError if it is damaged; nothing in it is run. What is in ``weights`` and ``journal``
        shows when they are taken up, within :meth:`restoring`.
        """
        if not self.checkpoint.is_file():
            return None
        with self.restoring():
            state = load_plain(self.checkpoint, "it")
            if not isinstance(state, dict) or set(state) != set(_PARTS):
                raise ValueError("it does not have the parts of a checkpoint of this version")
            for name, kind in _PARTS.items():
                if type(state[name]) is not kind:
                    raise TypeError(f"{name} must be {kind.__name__}, got {shown(state[name])}")
            if state["step"] < 0:
                raise ValueError(f"step must be at least 0, got {state['step']}")
            json.dumps(state["settings"])  # they are compared with this run's
        return state

    @contextmanager
    def restoring(self) -> Iterator[None]:
        """Say of what goes wrong with a part of the checkpoint that the file is wrong."""
        try:
            yield
        except torch.OutOfMemoryError:
            raise
        except (
            AttributeError, LookupError, OSError, RuntimeError, TypeError, ValueError
        ) as error:  # fmt: skip
            said = str(error) if isinstance(error, (OSError, ValueError)) else repr(error)
            raise ValueError(
                f"folder must hold a checkpoint that loads, got {self.checkpoint}: {cut(said)}"
            ) from error

    def require_same(
        self,
        state: dict[str, Any],
        settings: Mapping[str, Any],
        model: nn.Module,
        former: Mapping[str, Any],
    ) -> None:
        """Refuse a checkpoint of other settings or of another network; says in what it differs.

        Settings of ``former`` versions that are not stored, or no longer exist, have these values.
        """
        differences = misfit({**former, **settings}, {**former, **state["settings"]})
        if not differences:
            with self.restoring():
                differences = _other_weights(model, state["weights"]["model"])
        if differences:
            raise ValueError(
                "folder must be empty or hold a run of the same settings, "
                f"got {self.checkpoint} with {differences}"
            )

    def begin(self, settings: dict[str, Any], step: int, ranks: Ranks, precision: str) -> None:
        """Write ``config.json`` when a run begins, at step 0, or add to it when one goes on.

        All ``settings`` are JSON values; ``precision`` says which one it is in here, and why.
        """
        for leftover in self.path.glob(f".{self.checkpoint.stem}-*{self.checkpoint.suffix}"):
            leftover.unlink(missing_ok=True)  # of a process that was killed while it wrote
        if not step:  # of a run that came to nothing
            self.config.unlink(missing_ok=True)
            self.skipped.unlink(missing_ok=True)
        start = {
            "step": step,
            "command": sys.argv,
            "processes": ranks.world,
            "device": ranks.device.type,
            "precision": precision,
            **machine(),
        }
        starts = _read(self.config, dict).get("starts", [])
        if not isinstance(starts, list):
            raise ValueError(f"starts in {self.config} must be a list, got {shown(starts)}")
        self._add({**settings, "starts": [*starts, start]})

    def finish(self, record: dict[str, Any]) -> None:
        """Add the result of a run to ``config.json``."""
        self._add({"result": record})

    def note_skipped(self, skipped: list[Skipped]) -> None:
        """Add files to ``skipped.json``, each once, and their number to ``config.json``."""
        before = _read(self.skipped, list)
        try:
            files = {entry["file"]: entry for entry in [*before, *skipped]}
        except (TypeError, KeyError) as error:
            raise ValueError(
                f"{self.skipped} must be a list of files with reasons, got {shown(before)}"
            ) from error
        if not self.skipped.is_file() or len(files) > len(before):
            write_json(self.skipped, list(files.values()))
            self._add({"skipped": len(files)})

    def _add(self, entries: dict[str, Any]) -> None:
        write_json(self.config, {**_read(self.config, dict), **entries})


def _read(path: Path, kind: type) -> Any:
    """A record of the run; an empty one if there is none yet, a ValueError if it is damaged."""
    if not path.is_file():
        return kind()
    return read_json(path, "record", kind, largest=_LARGEST_RECORD)


def misfit(settings: Mapping[str, Any], stored: Mapping[str, Any]) -> str:
    """How stored settings differ, such as ``"seed 1 (now 0)"``; "" if they do not.

    Settings that are dicts, such as ``data``, are compared name by name.
    """
    settings, stored = _flat(settings), _flat(stored)
    names = [name for name in {**settings, **stored} if name not in settings
             or name not in stored or settings[name] != stored[name]]  # fmt: skip
    return ", ".join(
        f"{name} {shown(stored.get(name, 'unset'), _LONGEST)} "
        f"(now {shown(settings.get(name, 'unset'), _LONGEST)})"
        for name in names
    )


def _flat(settings: Mapping[str, Any]) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in settings.items():
        parts = value if isinstance(value, dict) else None
        flat |= {f"{name}.{part}": one for part, one in parts.items()} if parts else {name: value}
    return flat


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
