"""The evaluations of a run, as tables in its folder, and the best network by them.

A run may be killed at any moment: the best network is first staged, and published only when the
checkpoint knows of its evaluation.
"""

from __future__ import annotations

import csv
import itertools
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from free.files import write_atomic, write_json
from free.training.parallel import Ranks

#: Called on all ranks with the averaged weights; the same result on all.
Evaluate = Callable[[Any, Ranks], dict[str, Any]]

#: The figure that the best network is kept by.
FIGURE = "parallel_efficiency"

#: Figures of other settings are no measure of an evaluation.
_SETTINGS = ("images", "window", "cfg_scale", "cfg_channels")

_STAGED = ".best-step-"


class Evaluations:
    """The evaluations of a run, kept in its folder.

    ``results`` are those so far, of a run that is continued; each has ``step``,
    ``parallel_efficiency`` and its settings.
    """

    def __init__(self, folder: Path, results: list[dict[str, Any]]) -> None:
        self.folder, self.results = folder, list(results)

    @property
    def best(self) -> dict[str, Any] | None:
        """The first of those with the highest parallel efficiency; None of none.

        Only the last ones with the same settings are compared.
        """

        def settings(result: dict[str, Any]) -> list[Any]:
            return [result.get(name) for name in _SETTINGS]

        last = itertools.takewhile(
            lambda result: settings(result) == settings(self.results[-1]), reversed(self.results)
        )
        return max(reversed(list(last)), key=lambda result: result[FIGURE], default=None)

    def add(self, result: dict[str, Any], save: Callable[[Path], object]) -> None:
        """Note an evaluation; a checkpoint and then :meth:`publish` must follow.

        If it is the best, ``save(folder)`` is asked to write the network.
        """
        self.results.append(result)
        if self.best is result:
            self._forget_staged()
            save(self.folder / f"{_STAGED}{result['step']}")

    def publish(self) -> None:
        """Bring the folder to what the checkpoint knows: tables, and the best network.

        Also whenever a run goes on: what a killed process had begun is finished, or forgotten.
        """
        step = self.best and self.best["step"]
        best, old = self.folder / "best", self.folder / ".best-old"
        staged = self.folder / f"{_STAGED}{step}"
        if staged.exists():
            if best.exists():
                shutil.rmtree(old, ignore_errors=True)
                best.rename(old)  # a folder cannot be renamed over one that is not empty
            staged.rename(best)
        shutil.rmtree(old, ignore_errors=True)
        self._forget_staged()
        if self.results:
            write_json(self.folder / "evaluations.json", self.results)
            write_atomic(self.folder / "evaluations.csv", self._write_table)

    def _forget_staged(self) -> None:
        for leftover in self.folder.glob(f"{_STAGED}*"):
            shutil.rmtree(leftover, ignore_errors=True)

    def _write_table(self, path: Path) -> None:
        rows = [scalars(result) for result in self.results]
        names = list(dict.fromkeys(name for row in rows for name in row))
        with path.open("w", encoding="utf-8", newline="") as file:
            table = csv.DictWriter(file, names, lineterminator="\n")
            table.writeheader()
            table.writerows(rows)


def scalars(result: dict[str, Any]) -> dict[str, float]:
    """The numbers of an evaluation; short lists become columns such as ``delta_by_position_1``."""
    columns: dict[str, float] = {}
    for name, value in result.items():
        if isinstance(value, list) and name.endswith("_by_position"):
            columns |= {f"{name}_{at}": one for at, one in enumerate(value, 1) if one is not None}
        elif isinstance(value, (int, float)):
            columns[name] = value
    return columns
