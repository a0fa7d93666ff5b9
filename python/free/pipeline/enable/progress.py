"""A pipeline's progress bar that counts transitions, though the pipeline counts rounds."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any


class TransitionBar:
    """The bar of a pipeline, which moves by the transitions that the slowest sample has made.

    ``made`` returns how many these are, or None in a loop that makes none. All else is the bar's
    own.
    """

    def __init__(self, bar: Any, made: Callable[[], int | None], rounds: Any = None) -> None:
        self._bar, self._made, self._rounds = bar, made, rounds
        self._shown = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._bar, name)

    def __enter__(self) -> TransitionBar:
        self._bar.__enter__()
        return self

    def __exit__(self, *error: Any) -> Any:
        return self._bar.__exit__(*error)

    def __iter__(self) -> Iterator[Any]:
        with self._bar:
            for timestep in self._rounds:
                yield timestep
                self.update()

    def update(self, n: int = 1) -> Any:
        """Show the transitions made since the last update; ``n``, of rounds, says nothing."""
        made = self._made()
        if made is None:
            return self._bar.update(n)
        shown, self._shown = self._shown, made
        return self._bar.update(made - shown)
