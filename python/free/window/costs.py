"""What rounds cost: curves of seconds by rows, corrected by every round.

Nothing here measures; :mod:`free.window.measure` does.
"""

from __future__ import annotations

import bisect
import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from free.files import shown
from free.window.acceptance import sweeps_name, sweeps_named

#: What the time of drafting depends on: rows of all windows together; samples, for each transition
#: of the longest window; or samples alone, where a graph drafts windows of one width.
DRAFTING = ("rows", "calls", "windows")


class RoundCosts:
    """Seconds of rounds, added up from curves of their parts.

    Parameters
    ----------
    teacher : CostCurve
        By teacher rows.
    plain : CostCurve
        The rest of the plain sampler's rounds, by samples.
    other : CostCurve
        The rest of speculative rounds, without teacher and drafter, by teacher rows.
    draft : mapping of (int or None) to (str, CostCurve)
        For each number of sweeps one of :data:`DRAFTING`, and the curve.
    """

    def __init__(
        self,
        teacher: CostCurve,
        plain: CostCurve,
        other: CostCurve,
        draft: Mapping[int | None, tuple[str, CostCurve]],
    ) -> None:
        self.teacher = teacher
        self.plain = plain
        self.other = other
        self.draft = dict(draft)

    def plain_round(self, samples: int) -> float:
        """Seconds of a round of the plain sampler."""
        return self.teacher.at(samples) + self.plain.at(samples)

    def round(
        self, samples: int, drafts: ArrayLike, longest: ArrayLike, sweeps: int | None
    ) -> NDArray[np.float64]:
        """Seconds of speculative rounds.

        Parameters
        ----------
        samples : int
        drafts : array_like of int
            All drafts of the round; each is a teacher row besides the ``samples``.
        longest : array_like of int
            Drafts of the longest window.
        sweeps : int or None
        """
        rows = samples + np.asarray(drafts)
        by, curve = self.draft[sweeps]
        if by == "rows":
            drafting = curve(drafts)
        elif by == "calls":
            drafting = np.asarray(longest) * curve.at(samples)
        else:
            drafting = curve.at(samples)
        return self.teacher(rows) + drafting + self.other(rows)

    def require(self, sweeps: Iterable[int | None]) -> None:
        """Raise a ValueError unless each number of ``sweeps`` has a curve of drafting."""
        missing = [number for number in sweeps if number not in self.draft]
        if missing:
            raise ValueError(
                f"costs must have a curve of drafting for sweeps {missing[0]}, "
                f"got curves for {list(self.draft)}"
            )

    def observe(
        self,
        samples: int,
        drafts: int,
        longest: int,
        sweeps: int | None,
        spent: Mapping[str, float],
    ) -> None:
        """Correct the curves by a round, ``spent`` seconds by phase; 0 drafts for a plain one."""
        self.teacher.observe(samples + drafts, spent.get("teacher", 0.0))
        rest = spent.get("verify", 0.0) + spent.get("bookkeeping", 0.0)
        if not drafts:
            self.plain.observe(samples, rest)
            return
        self.other.observe(samples + drafts, rest)
        by, curve = self.draft[sweeps]
        at = drafts if by == "rows" else samples
        calls = longest if by == "calls" else 1
        curve.observe(at, spent.get("draft", 0.0) / calls)

    def to_dict(self) -> dict[str, Any]:
        """The costs as JSON values; sweeps by name (:func:`free.window.acceptance.sweeps_name`)."""
        parts = {name: getattr(self, name).to_dict() for name in ("teacher", "plain", "other")}
        draft = {
            sweeps_name(sweeps): {"by": by, **curve.to_dict()}
            for sweeps, (by, curve) in self.draft.items()
        }
        return {**parts, "draft": draft}

    @classmethod
    def from_dict(cls, record: dict[str, Any]) -> RoundCosts:
        """The inverse of :meth:`to_dict`.

        Raises
        ------
        ValueError
            If it is no such record.
        """
        try:
            teacher, plain, other = (
                CostCurve.from_dict(record[name]) for name in ("teacher", "plain", "other")
            )
            draft = {
                sweeps_named(name): (entry["by"], CostCurve.from_dict(entry))
                for name, entry in record["draft"].items()
            }
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(
                f"costs must have curves as written by to_dict, got {shown(record)}"
            ) from error
        if any(by not in DRAFTING for by, _ in draft.values()):
            raise ValueError(f"costs must draft by one of {DRAFTING}, got {shown(record['draft'])}")
        return cls(teacher, plain, other, draft)


#: Shares of an observation's surprise that correct the curve near it, and all of the curve.
_NEAR, _EVERYWHERE = 0.5, 0.2

#: Share of a local correction that reaches half or twice the rows.
_REACH = 0.6

#: Largest surprise of one observation, in logarithm: others use the machine, too.
_SURPRISE = math.log(4.0)

#: Share of a local correction that stays with each observation elsewhere.
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
        If ``rows`` or ``seconds`` are out of these ranges, or differ in length.
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
        """Seconds of ``rows``; 0 of 0. Beyond the last knot the last slope goes on."""
        rows = np.asarray(rows, dtype=np.float64)
        inside = np.interp(rows, self._rows, self._seconds)
        beyond = np.maximum(rows - self._rows[-1], 0.0) * self._slope
        return np.where(rows > 0, inside + beyond, 0.0)

    def at(self, rows: float) -> float:
        """Seconds of one number of rows, faster than by calling."""
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
        """Correct the curve by the ``seconds`` that ``rows`` took.

        Near ``rows`` it follows at once, elsewhere slowly: if everything has become slower, other
        numbers of rows look cheap, are tried, and then corrected too.
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
        """Knots and their corrected seconds."""
        return {"rows": list(self._rows), "seconds": list(self._seconds)}

    @classmethod
    def from_dict(cls, record: dict[str, list[float]]) -> CostCurve:
        """The inverse of :meth:`to_dict`."""
        return cls([int(row) for row in record["rows"]], record["seconds"])
