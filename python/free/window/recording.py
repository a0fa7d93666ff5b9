"""Making a drafter's record: what its deltas are, seen from windows of one width."""

from __future__ import annotations

import numpy as np

from free.window.acceptance import DISTANCES, PARTS, AcceptanceRecord, acceptance, places
from free.window.rule import Choice, Committed, FixedWindow, Integers, Run, Windows

__all__ = [
    "PositionWindow",
    "RecordingWindow",
]


class RecordingWindow:
    """A fixed window that notes the deltas of committed transitions.

    Parameters
    ----------
    rows : int
        Rows of a window, >= 2; distances up to it are recorded.
    """

    learns = True

    def __init__(self, rows: int) -> None:
        self.largest = rows
        self._fixed: Windows | None = None
        self._known: Integers | None = None
        self._steps = 0
        self._sums, self._counts = np.zeros((2, 2, len(DISTANCES), PARTS))

    def begin(self, run: Run) -> Windows:
        """What is noted adds up from run to run."""
        self._fixed = FixedWindow(self.largest).begin(run)
        self._steps = len(run.table.sigma)
        return self

    def choose(self, k: Integers, known: Integers | None) -> Choice:
        """As the fixed window."""
        self._known = known
        assert self._fixed is not None
        return self._fixed.choose(k, known)

    def made(self, committed: Committed) -> None:
        """Note the deltas."""
        if committed.deltas is None or self._known is None:
            return
        drafts = committed.deltas.shape[1]
        kind, distance, part = places(committed.k, self._known, drafts, self._steps)
        seen = ~np.isnan(committed.deltas)
        bucket = np.searchsorted(DISTANCES, distance[seen], side="right") - 1
        at = (kind[seen], bucket, part[seen])
        np.add.at(self._sums, at, 1.0 - acceptance(committed.deltas[seen]))
        np.add.at(self._counts, at, 1.0)

    def record(self) -> AcceptanceRecord:
        """What was noted.

        Raises
        ------
        ValueError
            If that is nothing.
        """
        return AcceptanceRecord.of(self._sums, self._counts)


class PositionWindow:
    """A fixed window that notes the deltas of committed transitions by their place.

    Parameters
    ----------
    rows : int
        Rows of a window, W >= 2.

    Attributes
    ----------
    sums : ndarray, shape [3, W - 1], float64
        Drafts decided on at each place, and the sums of their ``delta`` and of their probability
        to stand; they add up from run to run.
    """

    learns = True

    def __init__(self, rows: int) -> None:
        self.largest = rows
        self.sums = np.zeros((3, rows - 1))
        self._fixed: Windows | None = None

    def begin(self, run: Run) -> Windows:
        """As the fixed window."""
        self._fixed = FixedWindow(self.largest).begin(run)
        return self

    def choose(self, k: Integers, known: Integers | None) -> Choice:
        """As the fixed window."""
        assert self._fixed is not None
        return self._fixed.choose(k, known)

    def made(self, committed: Committed) -> None:
        """Note the deltas."""
        if committed.deltas is None:
            return
        seen = ~np.isnan(committed.deltas)
        delta = np.where(seen, committed.deltas, 0.0)
        places = delta.shape[1]  # fewer than W - 1 where a run ends
        self.sums[0, :places] += seen.sum(0)
        self.sums[1, :places] += delta.sum(0)
        self.sums[2, :places] += np.where(seen, acceptance(delta), 0.0).sum(0)
