"""How long something takes, by its number of rows: measured, then corrected by what is seen."""

from __future__ import annotations

import bisect
import itertools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

__all__ = ["CostCurve"]

#: How much of an observation's surprise changes the curve around it, and all of the curve.
_NEAR, _EVERYWHERE = 0.5, 0.2
#: Share of a correction that reaches half or twice the rows.
_REACH = 0.6
#: What a single observation may claim, in logarithm: others use the machine, too.
_SURPRISE = math.log(4.0)
#: Share of a local correction that stays with each observation made elsewhere.
_MEMORY = 0.99


class CostCurve:
    """Seconds as a function of rows: linear between knots, never falling.

    Parameters
    ----------
    rows : sequence of int
        Knots, rising, >= 1.
    seconds : sequence of float
        Measured there, > 0.

    Raises
    ------
    ValueError
        If they are not such.
    """

    def __init__(self, rows: Sequence[int], seconds: Sequence[float]) -> None:
        knots = np.asarray(rows, dtype=np.float64)
        measured = np.asarray(seconds, dtype=np.float64)
        if knots.ndim != 1 or not knots.size or knots.shape != measured.shape:
            raise ValueError(
                "rows and seconds must be vectors of one length, "
                f"got shapes {knots.shape} and {measured.shape}"
            )
        if knots[0] < 1 or (np.diff(knots) <= 0).any():
            raise ValueError(f"rows must be rising, from 1 on, got {list(rows)}")
        if not (np.isfinite(measured) & (measured > 0)).all():
            raise ValueError(f"seconds must be positive, got {list(seconds)}")
        # Plain numbers: every round asks and corrects, and arrays this small would take longer.
        self._rows: list[float] = knots.tolist()
        self._measured: list[float] = np.log(np.maximum.accumulate(measured)).tolist()
        self._scale = 0.0
        self._local = [0.0] * len(self._rows)
        self._refresh()

    def __call__(self, rows: ArrayLike) -> Any:
        """Seconds of ``rows``; 0 of none. Beyond the last knot the last slope goes on."""
        rows = np.asarray(rows, dtype=np.float64)
        inside = np.interp(rows, self._rows, self._seconds)
        beyond = np.maximum(rows - self._rows[-1], 0.0) * self._slope
        return np.where(rows > 0, inside + beyond, 0.0)

    def at(self, rows: float) -> float:
        """As calling it, for one number of rows."""
        knots, seconds = self._rows, self._seconds
        if rows <= 0:
            return 0.0
        if rows <= knots[0]:
            return seconds[0]
        if rows >= knots[-1]:
            return seconds[-1] + (rows - knots[-1]) * self._slope
        after = bisect.bisect_right(knots, rows)
        share = (rows - knots[after - 1]) / (knots[after] - knots[after - 1])
        return seconds[after - 1] + share * (seconds[after] - seconds[after - 1])

    def observe(self, rows: float, seconds: float) -> None:
        """Correct the curve by ``seconds`` that ``rows`` took just now.

        Near ``rows`` it follows at once, elsewhere slowly: if everything has become slower, what
        was not tried looks cheap, is tried, and found out.
        """
        if rows <= 0 or seconds <= 0:
            return
        surprise = max(-_SURPRISE, min(_SURPRISE, math.log(seconds / self.at(rows))))
        self._scale += _EVERYWHERE * surprise
        for knot, at in enumerate(self._rows):
            near = _REACH ** abs(math.log2(at / rows))
            self._local[knot] = _MEMORY * self._local[knot] + _NEAR * surprise * near
        self._refresh()

    def _refresh(self) -> None:
        pairs = zip(self._measured, self._local, strict=True)
        now = [math.exp(measured + self._scale + local) for measured, local in pairs]
        self._seconds = list(itertools.accumulate(now, max))
        if len(now) > 1:
            rise = self._seconds[-1] - self._seconds[-2]
            self._slope = rise / (self._rows[-1] - self._rows[-2])
        else:
            self._slope = self._seconds[0] / self._rows[0]

    def to_dict(self) -> dict[str, list[float]]:
        """Knots and seconds as they are now."""
        return {"rows": list(self._rows), "seconds": list(self._seconds)}

    @classmethod
    def from_dict(cls, record: dict[str, list[float]]) -> CostCurve:
        """The inverse of :meth:`to_dict`."""
        return cls([int(row) for row in record["rows"]], record["seconds"])
