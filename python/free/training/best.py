"""The best network of a run so far, in a folder that a reader finds whole."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

__all__ = ["FOLDER", "recover_best", "replace_best"]

#: Name of it in the folder of a run.
FOLDER = "best"
_NEW, _OLD = ".best-new", ".best-old"


def replace_best(folder: Path, save: Callable[[Path], object]) -> None:
    """Have ``save`` write a network to a folder, then put that in the place of the best.

    Parameters
    ----------
    folder : Path
        Of the run.
    save : callable
        Writes the network to the folder it is given.
    """
    best, new, old = (folder / name for name in (FOLDER, _NEW, _OLD))
    for leftover in (new, old):
        shutil.rmtree(leftover, ignore_errors=True)
    save(new)
    if best.exists():
        best.rename(old)  # a folder cannot be renamed over one that is not empty
    new.rename(best)
    shutil.rmtree(old, ignore_errors=True)


def recover_best(folder: Path) -> None:
    """Bring the best back, if a process was killed between the two renames."""
    if not (folder / FOLDER).exists() and (folder / _OLD).exists():
        (folder / _OLD).rename(folder / FOLDER)
    for leftover in (_NEW, _OLD):
        shutil.rmtree(folder / leftover, ignore_errors=True)
