"""Fixed windows that note how far drafts are from the teacher: by distance, or by place."""

from __future__ import annotations

import numpy as np

from free.window.acceptance import (
    DISTANCES,
    PARTS,
    AcceptanceRecord,
    Floats,
    acceptance,
    bucket_of,
    places,
)
from free.window.rule import Choice, Committed, FixedWindow, Integers, Run, Windows


class _Noting:
    """A fixed window, rule and windows in one; what a subclass notes adds up from run to run."""

    learns = True
    _fixed: Windows
    _known: Integers | None = None
    _steps = 0

    def __init__(self, rows: int) -> None:
        self.largest = rows

    def begin(self, run: Run) -> Windows:
        """Begin a run of the fixed window."""
        self._fixed = FixedWindow(self.largest).begin(run)
        self._steps = len(run.table.sigma)
        return self

    def choose(self, k: Integers, known: Integers | None) -> Choice:
        """Choose the fixed window."""
        self._known = known
        return self._fixed.choose(k, known)

    def made(self, committed: Committed) -> None:
        """Note the deltas of drafts that were decided on."""
        if committed.deltas is not None:
            self._note(committed.k, committed.deltas)

    def _note(self, k: Integers, deltas: Floats) -> None:
        raise NotImplementedError


class RecordingWindow(_Noting):
    """A fixed window that makes a drafter's :class:`AcceptanceRecord`.

    Parameters
    ----------
    rows : int
        Rows of a window, >= 2; distances up to it are recorded.
    """

    def __init__(self, rows: int) -> None:
        super().__init__(rows)
        self._sums, self._counts = np.zeros((2, 2, len(DISTANCES), PARTS))

    def _note(self, k: Integers, deltas: Floats) -> None:
        if self._known is None:
            return
        kind, distance, part = places(k, self._known, deltas.shape[1], self._steps)
        decided = ~np.isnan(deltas)
        cell = (kind[decided], bucket_of(distance[decided]), part[decided])
        np.add.at(self._sums, cell, 1.0 - acceptance(deltas[decided]))
        np.add.at(self._counts, cell, 1.0)

    def record(self) -> AcceptanceRecord:
        """The record of all runs, or a ValueError if no draft was noted."""
        return AcceptanceRecord.of(self._sums, self._counts)


class PositionWindow(_Noting):
    """A fixed window that sums up deltas by their place in the window.

    Parameters
    ----------
    rows : int
        Rows of a window, W >= 2.

    Attributes
    ----------
    sums : ndarray, shape [3, W - 1], float64
        Drafts decided on at each place, and the sums of their ``delta`` and of their probability
        to stand.
    """

    def __init__(self, rows: int) -> None:
        super().__init__(rows)
        self.sums = np.zeros((3, rows - 1))

    def _note(self, k: Integers, deltas: Floats) -> None:
        decided = ~np.isnan(deltas)
        delta = np.where(decided, deltas, 0.0)
        stands = np.where(decided, acceptance(delta), 0.0)
        width = delta.shape[1]  # less than W - 1 where a run ends
        self.sums[:, :width] += np.stack([decided, delta, stands]).sum(1)
