"""What evaluations of a run have found, and the best network by them."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path
from typing import Any

from free.files import write_atomic, write_json
from free.training.best import replace_best
from free.training.parallel import Ranks

__all__ = ["Evaluate", "Evaluations", "best_of", "scalars"]

#: Called on all ranks with the averaged weights; the same result on all.
Evaluate = Callable[[Any, Ranks], dict[str, Any]]

#: The figure that the best network is kept by.
_FIGURE = "parallel_efficiency"
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
        """Write an evaluation down.

        Parameters
        ----------
        evaluation : dict
            With ``step`` and ``parallel_efficiency``.
        save : callable
            Writes the network to the folder that it is given: it is asked to if this is the best.
        """
        self.found.append(evaluation)
        if best_of(self.found) is evaluation:
            replace_best(self.folder, save)
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
    """The first of those with the highest parallel efficiency; None of none."""
    return max(found, key=lambda one: one[_FIGURE], default=None)


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
