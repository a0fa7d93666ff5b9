"""The folder of a run says what made it: settings, commands, versions, what was skipped."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from free.bench.machine import machine
from free.files import write_json
from free.training.data import Skipped
from free.training.parallel import Ranks

__all__ = ["CONFIG", "SKIPPED", "finish_record", "write_record", "write_skipped"]

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
