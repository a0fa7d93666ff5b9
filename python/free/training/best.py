"""The best network of a run so far, in a folder that a reader finds whole.

It is replaced in two steps, with the checkpoint that knows of it between them: a process that is
killed leaves the best network that its last checkpoint knows, or what makes it so.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

__all__ = ["FOLDER", "publish_best", "stage_best"]

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
