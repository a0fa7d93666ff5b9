"""One way to tell people how far a run is."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from tqdm import tqdm

__all__ = ["Progress", "progress_bar"]

#: False for silence, True for a bar, or a function that is told how many transitions were made.
Progress = bool | Callable[[int], object]


@contextmanager
def progress_bar(progress: Progress, total: int) -> Iterator[Callable[[int], object]]:
    """A function to report transitions to; shows a bar of ``total`` if ``progress`` is True."""
    if callable(progress):
        yield progress
        return
    with tqdm(total=total, disable=not progress, unit="step") as bar:
        yield bar.update
