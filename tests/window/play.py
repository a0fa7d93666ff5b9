"""Runs without networks: drafts stand as a true delta says, rounds take what a machine takes."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from free import FrozenDrafter, Schedule
from free.schedule.table import Table
from free.window import Run
from free.window.acceptance import (
    DISTANCES,
    FRESH,
    PARTS,
    RECYCLED,
    AcceptanceRecord,
    acceptance,
    places,
)
from free.window.auto import AutoWindows, Basis
from free.window.costs import CostCurve, RoundCosts
from free.window.rule import Committed, FixedWindows, Windows
from tests.networks import CallableDrafter, MixtureTeacher

#: For runs with networks.
TEACHER = MixtureTeacher(4)
DRAFTER = CallableDrafter(MixtureTeacher(4, shift=0.02))
SCHEDULE = Schedule.ddpm(40)

STEPS = 250
Delta = Callable[[NDArray[np.int64], NDArray[np.int64]], NDArray[np.float64]]


class Machine(NamedTuple):
    """Times of a machine in units of a plain call: the share of a call that does not grow with its
    rows, and a factor that depends on the progress of the run.
    """

    fixed: float
    factor: Callable[[float], float] = lambda progress: 1.0
    drafting: float = 0.1

    def costs(self, samples: int, largest: int = 32) -> RoundCosts:
        """As measured at the beginning."""
        rows = [1, 2, 4, 8, 16, 32] + [samples * n for n in (1, 2, 4, 8, 16, 32) if samples > 32]
        rows = sorted(set(rows))
        draft = CostCurve(rows, [self.drafting * (0.5 + 0.02 * r) for r in rows])
        return RoundCosts(
            CostCurve(rows, [self.teacher(r) for r in rows]),
            CostCurve([1, 64], [0.02, 0.03]),
            CostCurve(rows, [0.1 + 0.002 * r for r in rows]),
            {1: ("rows", draft)},
        )

    def teacher(self, rows: float) -> float:
        return self.fixed + (1 - self.fixed) * rows


def measured_delta(scale: float = 1.0) -> Delta:
    """What drafts are worth: like the embedded model's, harder towards the end."""

    def delta(kind: NDArray[np.int64], distance: NDArray[np.int64]) -> NDArray[np.float64]:
        return scale * np.where(kind == RECYCLED, 0.1, 0.2) * distance**0.7

    return delta


def record(scale: float = 1.0) -> AcceptanceRecord:
    """The record of a drafter with :func:`measured_delta`."""
    kinds = [np.full(len(DISTANCES), kind) for kind in (FRESH, RECYCLED)]
    tables = [np.log(measured_delta(scale)(kind, DISTANCES)) for kind in kinds]
    return AcceptanceRecord(np.repeat(np.stack(tables)[:, :, None], PARTS, axis=2))


class Played(NamedTuple):
    seconds: float
    rounds: int


def play(
    windows: Windows,
    machine: Machine,
    delta: Delta,
    samples: int = 1,
    seed: int = 0,
    noise: float = 0.0,
) -> Played:
    """One run; ``noise`` is the spread of times, in logarithm."""
    generator = np.random.default_rng(seed)
    truth = machine.costs(samples)
    k, known, seconds, rounds = np.zeros(samples, dtype=np.int64), None, 0.0, 0
    while len(k):
        choice = windows.choose(k, known)
        assert (choice.lengths >= 1).all()
        assert (choice.lengths <= STEPS - k).all()
        lengths, drafts, longest = choice.lengths, choice.lengths - 1, int(choice.lengths.max()) - 1
        factor = machine.factor(float(k.min()) / STEPS) * np.exp(noise * generator.normal())
        if longest == 0:
            times = max(choice.plain, 1)
            teacher, rest = float(truth.teacher(len(k))), float(truth.plain(len(k)))
            ahead = (float(k.min()) + np.arange(times)) / STEPS
            factor *= np.mean([machine.factor(p) for p in ahead]) / machine.factor(ahead[0])
            spent = {"teacher": times * teacher * factor, "bookkeeping": times * rest}
            advance, deltas = np.full_like(k, times), np.full((len(k), 0), np.nan)
        else:
            total = int(drafts.sum())
            spent = {
                "teacher": float(truth.teacher(len(k) + total)) * factor,
                "draft": float(truth.draft[1][1](total)),
                "verify": float(truth.other(len(k) + total)),
            }
            kind, distance, _ = places(k, known, longest, STEPS)
            size = delta(kind, distance) * np.exp(0.4 * generator.normal(size=kind.shape))
            stands = generator.random(kind.shape) < acceptance(size)
            drafted = np.arange(longest) < drafts[:, None]
            advance = 1 + (stands & drafted).cumprod(1).sum(1)
            made = np.arange(longest) < np.minimum(advance, drafts)[:, None]
            deltas = np.where(made, size, np.nan)
        rounds, seconds = rounds + max(choice.plain, 1), seconds + sum(spent.values())
        going = k + advance < STEPS
        windows.made(Committed(k, advance, deltas, spent, going))
        known = np.maximum(lengths - advance + 1, 1)[going]
        k = (k + advance)[going]
    return Played(seconds, rounds)


def automatic(
    machine: Machine, believed: AcceptanceRecord | None = None, samples: int = 1
) -> AutoWindows:
    """The automatic window, with the costs measured at the beginning."""
    records = {1: believed or record()}
    return AutoWindows(STEPS, samples, Basis(32, machine.costs(samples), records))


def fixed(rows: int) -> Windows:
    return FixedWindows(rows, STEPS, 1)


def begun(teacher: Any, schedule: Schedule) -> Run:
    """A run at its beginning, as rules see it."""
    table = Table.of(schedule, "cpu")
    return Run(
        model=teacher,
        target=teacher,
        guided=False,
        drafter=FrozenDrafter(),
        owner=FrozenDrafter(),
        table=table,
        labels=torch.arange(2),
        seeds=torch.arange(2),
        state=torch.zeros(2, 1, 8, 8),
        sweeps=1,
        verifier="reflection",
    )
