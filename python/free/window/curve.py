"""How long something takes, by its number of rows: measured, then corrected by what is seen."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

__all__ = ["CostCurve"]

#: How much of an observation's surprise changes the curve around it, and all of the curve.
_NEAR, _EVERYWHERE = 0.7, 0.2
#: Share of a correction that reaches half or twice the rows.
_REACH = 0.6
#: What a single observation may claim, in logarithm: others use the machine, too.
_SURPRISE = np.log(4.0)
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
        self._rows = np.asarray(rows, dtype=np.float64)
        measured = np.asarray(seconds, dtype=np.float64)
        if self._rows.ndim != 1 or not self._rows.size or self._rows.shape != measured.shape:
            raise ValueError(
                "rows and seconds must be vectors of one length, "
                f"got shapes {self._rows.shape} and {measured.shape}"
            )
        if self._rows[0] < 1 or (np.diff(self._rows) <= 0).any():
            raise ValueError(f"rows must be rising, from 1 on, got {list(rows)}")
        if not (np.isfinite(measured) & (measured > 0)).all():
            raise ValueError(f"seconds must be positive, got {list(seconds)}")
        self._measured = np.log(np.maximum.accumulate(measured))
        self._scale = 0.0
        self._local = np.zeros_like(measured)
        self._refresh()

    def __call__(self, rows: ArrayLike) -> Any:
        """Seconds of ``rows``; 0 of none. Beyond the last knot the last slope goes on."""
        rows = np.asarray(rows, dtype=np.float64)
        inside = np.interp(rows, self._rows, self._seconds)
        beyond = np.maximum(rows - self._rows[-1], 0.0) * self._slope
        return np.where(rows > 0, inside + beyond, 0.0)

    def observe(self, rows: float, seconds: float) -> None:
        """Correct the curve by ``seconds`` that ``rows`` took just now.

        Near ``rows`` it follows at once, elsewhere slowly: if everything has become slower, what
        was not tried looks cheap, is tried, and found out.
        """
        if rows <= 0 or seconds <= 0:
            return
        surprise = float(np.clip(np.log(seconds / self(rows)), -_SURPRISE, _SURPRISE))
        near = _REACH ** np.abs(np.log2(self._rows / rows))
        self._scale += _EVERYWHERE * surprise
        self._local = _MEMORY * self._local + _NEAR * surprise * near
        self._refresh()

    def _refresh(self) -> None:
        self._seconds = np.maximum.accumulate(np.exp(self._measured + self._scale + self._local))
        if len(self._rows) > 1:
            rise = self._seconds[-1] - self._seconds[-2]
            self._slope = rise / (self._rows[-1] - self._rows[-2])
        else:
            self._slope = self._seconds[0] / self._rows[0]

    def to_dict(self) -> dict[str, list[float]]:
        """Knots and seconds as they are now."""
        return {"rows": self._rows.tolist(), "seconds": self._seconds.tolist()}

    @classmethod
    def from_dict(cls, record: dict[str, list[float]]) -> CostCurve:
        """The inverse of :meth:`to_dict`."""
        return cls([int(row) for row in record["rows"]], record["seconds"])
