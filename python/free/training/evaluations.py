"""What evaluations of a run have found, and the best network by them."""

from __future__ import annotations

import csv
import itertools
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from free.files import write_atomic, write_json
from free.training.parallel import Ranks

__all__ = [
    "FOLDER",
    "Evaluate",
    "Evaluations",
    "best_of",
    "publish_best",
    "scalars",
    "stage_best",
]

#: Called on all ranks with the averaged weights; the same result on all.
Evaluate = Callable[[Any, Ranks], dict[str, Any]]

#: The figure that the best network is kept by.
_FIGURE = "parallel_efficiency"

#: What an evaluation was made with: figures of others are no measure of it.
_SETTINGS = ("images", "window", "cfg_scale", "cfg_channels")

_TABLE, _FULL = "evaluations.csv", "evaluations.json"


class Evaluations:
    """The evaluations of a run, kept in its folder.

    Parameters
    ----------
    folder : Path
        Of the run.
    found : list of dict
        Those made so far, of a run that is continued.
    """

    def __init__(self, folder: Path, found: list[dict[str, Any]]) -> None:
        self.folder = folder
        self.found = list(found)

    def add(self, evaluation: dict[str, Any], save: Callable[[Path], object]) -> None:
        """Note an evaluation; a checkpoint and then :meth:`publish` must follow.

        Parameters
        ----------
        evaluation : dict
            With ``step`` and ``parallel_efficiency``, and the settings it was made with.
        save : callable
            Writes the network to the folder that it is given: it is asked to if this is the best.
        """
        self.found.append(evaluation)
        if best_of(self.found) is evaluation:
            stage_best(self.folder, evaluation["step"], save)

    def publish(self) -> None:
        """Bring the folder to what the checkpoint knows: tables, and the best network."""
        best = best_of(self.found)
        publish_best(self.folder, None if best is None else best["step"])
        if self.found:
            write_json(self.folder / _FULL, self.found)
            write_atomic(self.folder / _TABLE, self._write_table)

    def _write_table(self, path: Path) -> None:
        rows = [scalars(one) for one in self.found]
        names = list(dict.fromkeys(name for row in rows for name in row))
        with path.open("w", encoding="utf-8", newline="") as file:
            table = csv.DictWriter(file, names, lineterminator="\n")
            table.writeheader()
            table.writerows(rows)


def best_of(found: list[dict[str, Any]]) -> dict[str, Any] | None:
    """The first of those with the highest parallel efficiency; None of none.

    Only the last ones that were made with the same settings are compared.
    """

    def settings(one: dict[str, Any]) -> list[Any]:
        return [one.get(name) for name in _SETTINGS]

    last = itertools.takewhile(lambda one: settings(one) == settings(found[-1]), reversed(found))
    return max(reversed(list(last)), key=lambda one: one[_FIGURE], default=None)


def scalars(evaluation: dict[str, Any]) -> dict[str, float]:
    """Its numbers: short lists become columns such as ``delta_by_position_1``, others are left
    out.
    """
    columns: dict[str, float] = {}
    for name, value in evaluation.items():
        if isinstance(value, list) and name.endswith("_by_position"):
            columns |= {f"{name}_{at}": one for at, one in enumerate(value, 1) if one is not None}
        elif isinstance(value, (int, float)):
            columns[name] = value
    return columns


#: Name of it in the folder of a run.
FOLDER = "best"

_STAGED, _OLD = ".best-step-", ".best-old"


def stage_best(folder: Path, step: int, save: Callable[[Path], object]) -> None:
    """Have ``save`` write the network of a step; :func:`publish_best` makes it the best.

    Parameters
    ----------
    folder : Path
        Of the run.
    step : int
    save : callable
        Writes the network to the folder it is given.
    """
    _forget_staged(folder)
    save(folder / f"{_STAGED}{step}")


def publish_best(folder: Path, step: int | None) -> None:
    """Put the staged network in the place of the best, if it is the one of the best step.

    Also whenever a run goes on: what a killed process had begun is finished, or forgotten.

    Parameters
    ----------
    folder : Path
        Of the run.
    step : int or None
        Of the best network that the checkpoint knows.
    """
    best, staged, old = folder / FOLDER, folder / f"{_STAGED}{step}", folder / _OLD
    if staged.exists():
        if best.exists():
            shutil.rmtree(old, ignore_errors=True)
            best.rename(old)  # a folder cannot be renamed over one that is not empty
        staged.rename(best)
    shutil.rmtree(old, ignore_errors=True)
    _forget_staged(folder)


def _forget_staged(folder: Path) -> None:
    for leftover in folder.glob(f"{_STAGED}*"):
        shutil.rmtree(leftover, ignore_errors=True)
