"""What runs with a rule for windows would take: rounds played without networks."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from free.window.acceptance import AcceptanceEstimate, AcceptanceRecord, reached
from free.window.costs import RoundCosts
from free.window.rule import Committed, Windows


class Predicted(NamedTuple):
    """Expected figures of a run.

    Attributes
    ----------
    rounds, rows : float
        Rounds and teacher rows of a sample.
    seconds : float
        Of the run.
    """

    rounds: float
    rows: float
    seconds: float


def predict(
    windows: Callable[[], Windows],
    *,
    records: dict[int | None, AcceptanceRecord],
    costs: RoundCosts,
    steps: int,
    samples: int,
    recycles: bool,
    runs: int = 20,
) -> Predicted:
    """Play runs: drafts stand with the probabilities of the records, rounds take what they cost.

    Parameters
    ----------
    windows : callable
        Makes the windows of a new run.
    records : dict of (int or None) to AcceptanceRecord
        By number of sweeps.
    costs : RoundCosts
    steps, samples : int
    recycles : bool
        Whether rows behind a rejection are recycled.
    runs : int
        To average over.
    """
    generator = np.random.default_rng(0)
    rounds = rows = seconds = 0.0
    for _ in range(runs):
        chooser, k, known = windows(), np.zeros(samples, dtype=np.int64), None
        while len(k):
            choice = chooser.choose(k, known)
            lengths, drafts = choice.lengths, choice.lengths - 1
            advance = np.full_like(k, max(choice.plain, 1))
            if choice.plain:
                seconds += choice.plain * costs.plain_round(len(k))
            elif known is not None:
                record, longest = records[choice.sweeps], int(drafts.max())
                delta = AcceptanceEstimate(len(k), steps).expect(record, k, known, longest)
                delta = np.where(np.arange(longest) < drafts[:, None], delta, np.inf)
                # One uniform for a window: the number that stand has the right law.
                stands = generator.random((len(k), 1)) < reached(delta)
                advance = 1 + stands.sum(1)
                seconds += float(costs.round(len(k), drafts.sum(), longest, choice.sweeps))
            rounds += len(k) * max(choice.plain, 1)
            rows += lengths.sum() * max(choice.plain, 1)
            going = k + advance < steps
            nothing = np.full((len(k), int(drafts.max())), np.nan)
            chooser.made(Committed(k, advance, nothing, {}, going))
            recycled = lengths - advance + 1 if recycles else 1
            known = np.where(lengths > 1, recycled, 1)[going]
            k = (k + advance)[going]
    count = runs * samples
    return Predicted(rounds / count, float(rows / count), seconds / runs)
