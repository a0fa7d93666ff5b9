"""Windows as wide as pays, and the plain sampler where none does.

The rule decides from expected acceptance and costs; how they are estimated and measured is not its
business.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from free.arguments import as_integer
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
from free.window.rule import Choice, Committed, FixedWindow, Integers, Run, Windows

#: Speed-up that a speculative round must promise over plain ones: after another speculative round,
#: and after a plain one, when the expectation has not been checked for a while.
_MARGIN, _SWITCH = 1.05, 1.15
#: Plain transitions, at most, before the next choice; and after eight such stretches.
_STRETCH, _LONG_STRETCH = 8, 24
#: Share of the time that trials may lose. A trial is the slower, by expectation, of a plain and the
#: best speculative round: costs and drafters change, and measurements may be wrong.
_TRIALS = 0.0075
#: Loss that a trial is expected to have at least, as a share of its time.
_LEAST_LOSS = 0.03
#: Rows of a run's first window; each later one may be twice as wide, so that a drafter that does
#: not deserve its record costs little.
_FIRST = 16
#: Sweeps to choose among, of a drafter without records that is asked.
_SWEEPS = (1, 2)


class Basis(NamedTuple):
    """Limits, costs and expectations that windows are chosen by.

    Attributes
    ----------
    largest : int
        Rows of a window, at most.
    costs : RoundCosts
    records : dict of (int or None) to AcceptanceRecord
        By the numbers of sweeps to choose among.
    verifier : str
    """

    largest: int
    costs: RoundCosts
    records: dict[int | None, AcceptanceRecord]
    verifier: str = "reflection"


class AutoWindow:
    """The rule that chooses each round's rows to make most transitions a second, by expectation.

    What rounds cost is measured once, in a second or two, kept on disk, and corrected by every
    round; how likely drafts are to stand is the drafter's record, corrected by each sample's own
    committed transitions. A teacher call's rows are shared out among the samples of the batch
    (:func:`free.window.allocation.allocate`). Where no draft pays, the plain sampler goes on.

    The law of the samples is the teacher's, but the sample that a seed gives depends on the clock
    and on the batch.

    Parameters
    ----------
    largest : int
        Rows of a window, at most; on CUDA no more than 256.
    costs : RoundCosts, optional
        Used instead of measuring, and corrected by every round.
    records : mapping of (int or None) to AcceptanceRecord, optional
        Deltas to expect, by number of sweeps. By default the drafter's own
        (``drafter.acceptance``), or one that fits many.
    fresh : bool
        Measure even if the costs are on disk.

    Raises
    ------
    TypeError
        If ``costs`` or ``records`` are of another type.
    ValueError
        If ``largest`` is less than 1.

    Attributes
    ----------
    basis : Basis or None
        That of the last run's windows.
    """

    def __init__(
        self,
        largest: int = 32,
        costs: RoundCosts | None = None,
        records: Mapping[int | None, AcceptanceRecord] | None = None,
        fresh: bool = False,
    ) -> None:
        if costs is not None and not isinstance(costs, RoundCosts):
            raise TypeError(f"costs must be RoundCosts or None, got {costs!r}")
        if records is not None and not (
            isinstance(records, Mapping)
            and all(isinstance(record, AcceptanceRecord) for record in records.values())
        ):
            raise TypeError(
                f"records must be a mapping of sweeps to AcceptanceRecord or None, got {records!r}"
            )
        self.largest = as_integer(largest, "largest must be an integer >= 1", 1)
        self.costs = costs
        self.records = records
        self.fresh = fresh
        self.basis: Basis | None = None
        self._costs: dict[Any, tuple[Any, RoundCosts]] = {}

    def begin(self, run: Run) -> Windows:
        """Measure what rounds cost, if that is not known yet, and take the drafter's record."""
        largest = min(self.largest, len(run.table.sigma))
        if largest == 1:  # nothing is drafted, and nothing to choose
            return FixedWindow(1).begin(run)
        if run.state.device.type == "cuda":
            largest = min(largest, WIDEST_ON_CUDA)
        largest = min(largest, getattr(run.drafter, "window", largest))
        samples, rows = len(run.labels), getattr(run.model, "largest_batch", None)
        if rows is not None:
            largest = max(min(largest, rows // samples), 1)
        records = self._records(run)
        costs = self._known_costs(run, list(records), largest) if self.costs is None else self.costs
        costs.require(records)
        self.basis = Basis(largest, costs, records, run.verifier)
        return AutoWindows(len(run.table.sigma), samples, self.basis)

    def _known_costs(self, run: Run, sweeps: list[int | None], largest: int) -> RoundCosts:
        """Costs of the same networks from an earlier run, with its corrections; or measured."""
        networks: Any = fingerprint(run)
        parts = (run.model, run.owner, run.table.mixture)
        if networks is None:  # then these very objects, kept so that no other gets their id
            networks = (*map(id, parts), run.guided, str(run.state.device))
        # Another batch has other windows to choose among.
        key = (networks, tuple(run.state.shape), *sweeps, largest)
        if key not in self._costs:
            self._costs[key] = parts, measured_costs(run, sweeps, largest, self.fresh)
        return self._costs[key][1]

    def _records(self, run: Run) -> dict[int | None, AcceptanceRecord]:
        """The numbers of sweeps to choose among, each with its record."""
        records = self.records
        if records is None:
            records = read_records(getattr(run.drafter, "acceptance", {}))
        asked = getattr(run.drafter, "sampling", {}).get("sweeps") != 0
        numbers: tuple[int | None, ...] = (run.sweeps,) if not isinstance(run.sweeps, str) else ()
        numbers = numbers or tuple(records) or (_SWEEPS if asked else (0,))
        return {number: records.get(number) or AcceptanceRecord() for number in numbers}


class AutoWindows:
    """Windows of one run.

    Parameters
    ----------
    steps, samples : int
    basis : Basis
        Its costs are corrected by every round.
    """

    learns = True

    def __init__(self, steps: int, samples: int, basis: Basis) -> None:
        self._steps, self._basis, self._costs = steps, basis, basis.costs
        self._estimate = AcceptanceEstimate(samples, steps)
        self._rounds = 0  # speculative ones
        self._plain = 0  # transitions in a row
        self._speculating = False
        self._elapsed = self._lost = 0.0  # seconds of the run, and those lost by trials
        #: Of a trial: seconds that each of its transitions is expected to take otherwise.
        self._price: float | None = None
        self._known: Integers = np.zeros(0, dtype=np.int64)
        self._recycles = False  # until a window begins with rows of discarded states
        self._choice = Choice(np.zeros(0, dtype=np.int64), None)

    def choose(self, k: Integers, known: Integers | None) -> Choice:
        """The choice that promises most transitions a second; see :class:`Windows`."""
        self._price = None
        self._choice = Choice(np.ones_like(k), None, 1)
        if known is not None:
            self._known = known
            self._recycles = self._recycles or bool((known > 1).any())
            self._choice = self._decide(k, known)
        return self._choice

    def _decide(self, k: Integers, known: Integers) -> Choice:
        plain, left = self._choice, self._steps - k
        widest = min(self._basis.largest, _FIRST << min(self._rounds, 16), int(left.max()))
        best, advance, seconds = plain, 0.0, math.inf
        for sweeps, record in self._basis.records.items() if widest > 1 else ():
            cost = partial(self._costs.round, len(k), sweeps=sweeps)
            found = allocate(self._worth(record, k, known, widest, cost), cost)
            if found.drafts.any() and found.advance * seconds > advance * found.seconds:
                best = Choice(1 + found.drafts, sweeps)
                advance, seconds = found.advance, found.seconds
        # Each stretch is as long as all before: the cost of plain transitions is soon known.
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
        """What each draft [B, P] is worth, in transitions of this window and the next."""
        one = np.ones_like(k)
        foresees = self._recycles and widest >= 3
        # This window; and the next one, if the teacher has seen all its transitions, or none.
        cases = np.stack([known, one * widest, one]) if foresees else known[None]
        expected = self._estimate.expect(record, k, cases, widest - 1)
        now, *later = reached(expected, self._basis.verifier)
        if not later:
            return now
        recycled, fresh = later
        few, many = cost(np.array([1, widest - 1]) * len(k), np.array([1, widest - 1]))
        row = (many - few) / ((widest - 2) * len(k))
        price = row * len(k) / self._costs.plain_round(len(k))
        return np.minimum.accumulate(now + later_worth(now, recycled, fresh, float(price)), axis=1)

    def made(self, committed: Committed) -> None:
        """Learn what rounds cost and how many drafts stand."""
        sweeps, plain = self._choice.sweeps, self._choice.plain
        drafts = self._choice.lengths - 1
        spent = {name: part / max(plain, 1) for name, part in committed.seconds.items()}
        self._costs.observe(len(drafts), int(drafts.sum()), int(drafts.max()), sweeps, spent)
        seconds = sum(committed.seconds.values())
        if self._price is not None:
            self._lost += seconds - float(committed.advance.sum()) * self._price
        self._elapsed += seconds
        self._speculating = not plain
        self._plain = self._plain + plain if plain else 0
        if committed.deltas is not None and not plain:
            record = self._basis.records[sweeps]
            self._estimate.update(record, committed.k, self._known, committed.deltas)
            self._rounds += 1
        self._estimate.keep(committed.going)
