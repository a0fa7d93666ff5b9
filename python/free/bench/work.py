"""A bar that knows beforehand how much there is to do, and how long that takes."""

from __future__ import annotations

import time
from collections.abc import Mapping

from tqdm import tqdm


class WorkBar:
    """Progress through jobs of several kinds, as a bar of seconds with the time that is left.

    A kind's first jobs say how long the others will take. Until then that follows from its teacher
    rows, at the pace of all rows so far.

    Parameters
    ----------
    jobs : mapping of str to (int, float)
        For each kind, how many jobs, and the teacher rows of each.
    shown : bool
        Whether to draw it.
    """

    def __init__(self, jobs: Mapping[str, tuple[int, float]], shown: bool) -> None:
        self.left = {kind: count for kind, (count, _) in jobs.items()}
        self._rows = {kind: rows for kind, (_, rows) in jobs.items()}
        self._seconds = dict.fromkeys(jobs, 0.0)
        self._finished = dict.fromkeys(jobs, 0)
        self._last = time.perf_counter()
        self._bar = tqdm(
            total=sum(count * rows for count, rows in jobs.values()),
            disable=not shown,
            smoothing=0,  # the mean pace since the start, which is one second a second
            bar_format="{desc}{percentage:3.0f} %|{bar:40}| {elapsed}, {remaining} left",
        )

    def done(self, kind: str, kept: bool = True) -> None:
        """A job of this kind was done since the last one; it is to be done again if not kept."""
        now = time.perf_counter()
        spent, self._last = now - self._last, now
        self._seconds[kind] += spent
        self._finished[kind] += 1
        self.left[kind] = max(0, self.left[kind] - kept)
        self._bar.total = sum(self._seconds.values()) + self.remaining()
        self._bar.update(spent)

    def remaining(self) -> float:
        """Seconds that all jobs left are expected to take; 0 before the first is done."""
        rows = sum(n * self._rows[kind] for kind, n in self._finished.items())
        pace = sum(self._seconds.values()) / rows if rows else 0.0
        return sum(count * self._expected(kind, pace) for kind, count in self.left.items())

    def _expected(self, kind: str, pace: float) -> float:
        """Seconds of a job, where a row takes ``pace``."""
        finished = self._finished[kind]
        return self._seconds[kind] / finished if finished else self._rows[kind] * pace

    def close(self) -> None:
        """Leave the bar at its end."""
        self._bar.total = self._bar.n
        self._bar.refresh()
        self._bar.close()
