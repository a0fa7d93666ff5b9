"""Windows that are as wide as pays, and the plain sampler where none does."""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from free.ops import WIDEST_ON_CUDA
from free.window.acceptance import (
    AcceptanceEstimate,
    AcceptanceRecord,
    Floats,
    reached,
    read_records,
)
from free.window.allocation import Cost, allocate, later_worth
from free.window.costs import RoundCosts
from free.window.measure import fingerprint, measured_costs
from free.window.rule import Choice, Committed, Integers, Run, Windows

__all__ = ["AutoWindow", "AutoWindows", "Basis"]

#: A speculative round must be expected to be worth that much more than the plain sampler's: after
#: another, and after a plain one, when what is expected has not been seen for a while.
_MARGIN, _SWITCH = 1.05, 1.15
#: Transitions, at most, that the plain sampler makes before anything is chosen again; and after
#: eight such stretches.
_STRETCH, _LONG_STRETCH = 8, 24
#: Share of the time that may be lost by trying, of a plain and the best speculative round, the one
#: that seems slower: prices and drafters change, and what was measured may be wrong.
_TRIALS = 0.0075
#: What a trial is thought to lose at least, as a share of it.
_LEAST_LOSS = 0.03
#: Rows of a run's first window; each later one may be twice as wide, so that a drafter that does
#: not deserve its record costs little.
_FIRST = 16
#: Sweeps to choose among, of a drafter without records.
_SWEEPS = (1, 2)


class Basis(NamedTuple):
    """What windows are chosen by.

    Attributes
    ----------
    largest : int
        Rows of a window, at most.
    costs : RoundCosts
    ways : dict of (int or None) to AcceptanceRecord
        The numbers of sweeps to choose among.
    verifier : str
    """

    largest: int
    costs: RoundCosts
    ways: dict[int | None, AcceptanceRecord]
    verifier: str = "reflection"


class AutoWindow:
    """Choose each round's rows to make as many transitions a second as can be expected.

    What rounds cost is measured once, in a second or two, kept on disk, and corrected by every
    round; how likely drafts are to stand is the model's record, corrected by each sample's own
    committed transitions. A teacher call's rows are shared out among the samples of the batch
    (:func:`free.window.allocation.allocate`). Where no draft pays, the plain sampler goes on.

    The law of the samples is the teacher's, but the sample that a seed gives depends on what was
    measured and, where seeds are few, on its batch.

    Parameters
    ----------
    largest : int
        Rows of a window, at most; on CUDA no more than 256.
    costs : RoundCosts, optional
        What rounds cost, instead of measuring; corrected as they go.
    records : mapping of (int or None) to AcceptanceRecord, optional
        By number of sweeps, what deltas to expect. By default the drafter's own
        (``drafter.acceptance``), or one that fits many.
    fresh : bool
        Measure anew even if the costs are on disk.

    Raises
    ------
    TypeError
        If ``costs`` or ``records`` are something else.
    ValueError
        If ``largest`` is less than 1.

    Attributes
    ----------
    basis : Basis or None
        What the windows of the last run were chosen by.
    """

    def __init__(
        self,
        largest: int = 32,
        costs: RoundCosts | None = None,
        records: Mapping[int | None, AcceptanceRecord] | None = None,
        fresh: bool = False,
    ) -> None:
        if isinstance(largest, bool) or not isinstance(largest, int) or largest < 1:
            raise ValueError(f"largest must be an integer >= 1, got {largest!r}")
        if costs is not None and not isinstance(costs, RoundCosts):
            raise TypeError(f"costs must be RoundCosts or None, got {costs!r}")
        if records is not None and not (
            isinstance(records, Mapping)
            and all(isinstance(record, AcceptanceRecord) for record in records.values())
        ):
            raise TypeError(
                f"records must be a mapping of sweeps to AcceptanceRecord or None, got {records!r}"
            )
        self.largest = largest
        self.costs = costs
        self.records = records
        self.fresh = fresh
        self.basis: Basis | None = None
        self._measured: dict[Any, tuple[Any, RoundCosts]] = {}

    def begin(self, run: Run) -> Windows:
        """Measure what rounds cost, if that is not known yet, and take up the record."""
        largest = min(self.largest, len(run.table.sigma))
        if run.state.device.type == "cuda":
            largest = min(largest, WIDEST_ON_CUDA)
        largest = min(largest, getattr(run.drafter, "window", largest))
        samples, rows = len(run.labels), getattr(run.model, "largest_batch", None)
        if rows is not None:
            largest = max(min(largest, rows // samples), 1)
        ways = self._ways(run)
        costs = self._measured_costs(run, ways, largest) if self.costs is None else self.costs
        costs.require(ways)
        self.basis = Basis(largest, costs, ways, run.verifier)
        return AutoWindows(len(run.table.sigma), samples, self.basis)

    def _measured_costs(
        self, run: Run, ways: Mapping[int | None, AcceptanceRecord], largest: int
    ) -> RoundCosts:
        """Those of an earlier run of the same networks, corrected since, or of the disk, or new."""
        networks: Any = fingerprint(run)
        parts = (run.model, run.drafter, run.table.mixture)
        if networks is None:  # then these very objects, kept so that no other gets their id
            networks = (*map(id, parts), run.guided, str(run.state.device))
        # Another batch has other windows to choose among.
        key = (networks, tuple(run.state.shape), *ways, largest)
        if key not in self._measured:
            self._measured[key] = parts, measured_costs(run, ways, largest, self.fresh)
        return self._measured[key][1]

    def _ways(self, run: Run) -> dict[int | None, AcceptanceRecord]:
        """The numbers of sweeps to choose among, each with its record."""
        records = self.records
        if records is None:
            records = read_records(getattr(run.drafter, "acceptance", {}))
        sweeps = run.sweeps
        among = (tuple(records) or _SWEEPS) if isinstance(sweeps, str) else (sweeps,)
        return {way: records.get(way) or AcceptanceRecord() for way in among}


class AutoWindows:
    """One run's windows.

    Parameters
    ----------
    steps, samples : int
    basis : Basis
        Its costs are corrected as the run goes.
    """

    learns = True

    def __init__(self, steps: int, samples: int, basis: Basis) -> None:
        self._steps = steps
        self._largest, self._costs, self._ways, self._verifier = basis
        self._estimate = AcceptanceEstimate(samples, steps)
        self._rounds = 0  # speculative ones
        self._plain = 0  # transitions in a row
        self._speculating = False
        self._elapsed = self._lost = 0.0  # seconds of the run, and what trials have cost
        self._price: float | None = None  # of a trial's transitions, made otherwise
        self._known: Integers | None = None
        self._recycles = False  # until a window has been told of discarded rows
        self._choice = Choice(np.zeros(0, dtype=np.int64), None)

    def choose(self, k: Integers, known: Integers | None) -> Choice:
        """The choice that promises most transitions a second; see :class:`Windows`."""
        self._known = known
        self._recycles = self._recycles or (known is not None and bool((known > 1).any()))
        self._choice = self._decide(k, known)
        return self._choice

    def _decide(self, k: Integers, known: Integers | None) -> Choice:
        self._price = None
        plain = Choice(np.ones_like(k), None, 1)
        if known is None:
            return plain
        left = self._steps - k
        widest = min(self._largest, _FIRST << min(self._rounds, 16), int(left.max()))
        best, advance, seconds = plain, 0.0, math.inf
        for sweeps, record in self._ways.items() if widest > 1 else ():
            cost = partial(self._costs.round, len(k), sweeps=sweeps)
            drafts, promised, taken = allocate(self._worth(record, k, known, widest, cost), cost)
            if drafts.any() and promised * seconds > advance * taken:
                best, advance, seconds = Choice(1 + drafts, sweeps), promised, taken
        # Each stretch is as long as all before: what plain transitions take is soon known.
        longest = _STRETCH if self._plain < 8 * _STRETCH else _LONG_STRETCH
        stretch = plain._replace(plain=max(min(longest, self._plain, int(left.min())), 1))
        if best is plain:
            return stretch
        single = self._costs.plain_round(len(k))
        margin = _MARGIN if self._speculating else _SWITCH
        pays = advance * single > margin * seconds * len(k)
        if pays:
            tried, worth = single, len(k) * seconds / advance
        else:
            tried, worth = seconds, advance * single / len(k)
        expected = max(tried - worth, _LEAST_LOSS * tried)
        trial = pays == self._speculating and self._lost + expected < _TRIALS * self._elapsed
        self._price = worth / (len(k) if pays else advance) if trial else None
        if pays:
            return plain if trial else best
        return best if trial else stretch

    def _worth(
        self, record: AcceptanceRecord, k: Integers, known: Integers, widest: int, cost: Cost
    ) -> Floats:
        """What each draft [B, P] brings, in transitions, now and in the next window."""
        one = np.ones_like(k)
        foresees = self._recycles and widest >= 3
        # As things are; and in the next window, if it is told of all its transitions, or of none.
        cases = np.stack([known, one * widest, one]) if foresees else known[None]
        expected = self._estimate.expect(record, k, cases, widest - 1)
        now, *later = reached(expected, self._verifier)
        if not later:
            return now
        seen, fresh = later
        few, many = cost(np.array([1, widest - 1]) * len(k), np.array([1, widest - 1]))
        row = (many - few) / ((widest - 2) * len(k))
        price = row * len(k) / self._costs.plain_round(len(k))
        return np.minimum.accumulate(now + later_worth(now, seen, fresh, float(price)), axis=1)

    def made(self, committed: Committed) -> None:
        """Learn what rounds cost and how drafts fare."""
        lengths, sweeps, plain = self._choice
        drafts = lengths - 1
        spent = {name: part / max(plain, 1) for name, part in committed.seconds.items()}
        self._costs.observe(len(drafts), int(drafts.sum()), int(drafts.max()), sweeps, spent)
        seconds = sum(committed.seconds.values())
        if self._price is not None:
            self._lost += seconds - float(committed.advance.sum()) * self._price
        self._elapsed += seconds
        self._speculating = not plain
        self._plain = self._plain + plain if plain else 0
        if not plain:
            assert committed.deltas is not None
            assert self._known is not None
            record = self._ways[sweeps]
            self._estimate.update(record, committed.k, self._known, committed.deltas)
            self._rounds += 1
        self._estimate.keep(committed.going)
