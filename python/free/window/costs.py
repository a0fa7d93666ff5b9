"""What a round costs: teacher, drafting, and everything else."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from free.window.curve import CostCurve

__all__ = ["DRAFTING", "RoundCosts"]

#: What the time of drafting goes by: rows of all windows together; samples, for each transition of
#: the longest window; or samples alone, where a graph drafts windows of one width.
DRAFTING = ("rows", "calls", "windows")


class RoundCosts:
    """Seconds of rounds, from the curves of their parts.

    Parameters
    ----------
    teacher : CostCurve
        By teacher rows.
    plain : CostCurve
        What the plain sampler does besides, by samples.
    other : CostCurve
        What a speculative round does besides teacher and drafter, by teacher rows.
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
        """Seconds of a transition by the plain sampler."""
        return self.teacher.at(samples) + self.plain.at(samples)

    def round(
        self, samples: int, drafts: ArrayLike, longest: ArrayLike, sweeps: int | None
    ) -> NDArray[np.float64]:
        """Seconds of speculative rounds.

        Parameters
        ----------
        samples : int
        drafts : array_like of int
            All drafts of the round, each of which is a teacher row besides ``samples``.
        longest : array_like of int
            Drafts of the sample that has most.
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

    def require(self, ways: Iterable[int | None]) -> None:
        """Raise a ValueError unless all these numbers of sweeps have a curve."""
        missing = [way for way in ways if way not in self.draft]
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
        besides = spent.get("verify", 0.0) + spent.get("bookkeeping", 0.0)
        if not drafts:
            self.plain.observe(samples, besides)
            return
        self.other.observe(samples + drafts, besides)
        by, curve = self.draft[sweeps]
        at = drafts if by == "rows" else samples
        calls = longest if by == "calls" else 1
        curve.observe(at, spent.get("draft", 0.0) / calls)

    def to_dict(self) -> dict[str, Any]:
        """As JSON takes it; autoregression is 0 sweeps there."""
        parts = {name: getattr(self, name).to_dict() for name in ("teacher", "plain", "other")}
        draft = {
            str(sweeps or 0): {"by": by, **curve.to_dict()}
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
                int(sweeps) or None: (entry["by"], CostCurve.from_dict(entry))
                for sweeps, entry in record["draft"].items()
            }
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(
                f"costs must have curves as written by to_dict, got {record!r}"
            ) from error
        if any(by not in DRAFTING for by, _ in draft.values()):
            raise ValueError(f"costs must draft by one of {DRAFTING}, got {record['draft']!r}")
        return cls(teacher, plain, other, draft)
