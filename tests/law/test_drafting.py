"""The law of whole runs, however windows are drafted and verified and whatever is recycled.

Every combination of sweeps, recycling, window and verifier is a *cell*: 20,000 chains of 12
transitions with a teacher that is strongly nonlinear or nearly linear, and a drafter that is
rejected often, so that the samples of a batch are soon at different steps. Of each cell its 220,000
innovations are tested (:mod:`tests.law.paths`), and its samples against sequential ones. As all
cells of a teacher have one law and different seeds, samples are also pooled: all cells of
reflection with the same sweeps, with the same recycling or with the same window, more than 200,000
chains each, against 400,000 sequential ones.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor

from free import FrozenDrafter, Schedule, SequentialSampler, SpeculativeSampler
from free.drafters import Drafter
from free.schedule.table import Table
from tests.law.paths import innovations_p, margins_p, run
from tests.law.stats import energy_test
from tests.networks import AnchoredDrafter, CallableDrafter, MixtureTeacher
from tests.rules import Erratic

CHAINS = 20_000
LABELS = torch.arange(CHAINS) % 3
SCHEDULE = Schedule.ddpm(12)
#: A correct sampler falls below by chance once in 10,000 runs of a test.
LEVEL = 1e-4


class Case(NamedTuple):
    """A teacher, and another one that its drafter takes for it."""

    teacher: MixtureTeacher
    guess: MixtureTeacher


CASES = {
    "nonlinear": Case(MixtureTeacher(2), MixtureTeacher(2, shift=0.8, spread=0.3)),
    "nearly linear": Case(MixtureTeacher(2, spread=1.0), MixtureTeacher(2, shift=2.0, spread=1.0)),
}
SWEEPS = [None, 1, 2, 3]
RECYCLING = [False, "reuse", "control_variate", "response"]
WINDOWS = [2, 4, 8, 16]
CELLS = [(s, r, w, "reflection") for s in SWEEPS for r in RECYCLING for w in WINDOWS]
#: Block verification excludes recycling.
BLOCK = [(s, False, w, "block") for s in SWEEPS for w in WINDOWS]
SLOW = [cell for cell in BLOCK if cell[0] in (2, 3) or cell[2] in (2, 8)]
Cell = tuple[int | None, bool | str, int, str]


class Judged(NamedTuple):
    """What is left of a run: its samples, the p of its innovations, its acceptance."""

    samples: Tensor
    p: float
    acceptance: float


def judge(sampler: SpeculativeSampler, seed: int) -> Judged:
    made = run(sampler, LABELS, seed)
    return Judged(made.samples, innovations_p(made.innovations, made.states), made.acceptance)


@functools.cache
def _cell(case: str, cell: Cell) -> Judged:
    teacher, guess = CASES[case]
    sweeps, recycle, window, verifier = cell
    drafter = CallableDrafter(guess, in_turn=sweeps is None)
    sampler = SpeculativeSampler(
        teacher, drafter, SCHEDULE, window, verifier=verifier, sweeps=sweeps, recycle=recycle
    )
    return judge(sampler, seed=(1 + (CELLS + BLOCK).index(cell)) * CHAINS)


@functools.cache
def _sequential(case: str, schedule: Schedule, cfg_scale: float, batches: int) -> Tensor:
    sampler = SequentialSampler(CASES[case].teacher, schedule, cfg_scale)
    return sampler.sample(LABELS.repeat(batches), seed=10**9).samples


@pytest.mark.parametrize(
    "cell",
    [pytest.param(c, marks=pytest.mark.slow if c in SLOW else []) for c in CELLS + BLOCK],
    ids=str,
)
@pytest.mark.parametrize("case", CASES)
def test_law_of_every_combination(case: str, cell: Cell) -> None:
    judged = _cell(case, cell)
    assert 0.4 < judged.acceptance < 0.9
    assert judged.p > LEVEL
    assert margins_p(judged.samples, _sequential(case, SCHEDULE, 1.0, 20)) > LEVEL


@pytest.mark.parametrize(
    ("factor", "setting"),
    [(i, s) for i, settings in enumerate([SWEEPS, RECYCLING, WINDOWS]) for s in settings],
)
@pytest.mark.parametrize("case", CASES)
def test_law_of_pooled_samples(case: str, factor: int, setting: Any) -> None:
    cells = [cell for cell in CELLS if cell[factor] is setting]
    pool = torch.cat([_cell(case, cell).samples for cell in cells])
    assert len(pool) > 200_000
    assert margins_p(pool, _sequential(case, SCHEDULE, 1.0, 20)) > LEVEL


@pytest.mark.parametrize("case", CASES)
def test_joint_law_of_pooled_samples(case: str) -> None:
    """The energy distance sees what no margin shows; a part of each cell, 51,200 chains in all."""
    pool = torch.cat([_cell(case, cell).samples[:800] for cell in CELLS])
    assert energy_test(pool, _sequential(case, SCHEDULE, 1.0, 20)[: len(pool)]) > LEVEL


#: Not DDPM's: it does not say how eps tells x0, so drafts are guesses of eps.
OTHER_TABLE = Schedule(
    timesteps=SCHEDULE.timesteps,
    a=np.full(12, 0.97),
    b=np.linspace(-0.35, -0.15, 12),
    sigma=np.append(np.linspace(0.4, 0.15, 11), 0.0),
)


class Other(NamedTuple):
    """What the cells leave at its default."""

    sweeps: int | None
    recycle: bool | str
    window: int
    drafter: Callable[[MixtureTeacher], Drafter] = CallableDrafter
    cfg_scale: float = 1.0
    schedule: Schedule = SCHEDULE


def _frozen(keep: str) -> Callable[[MixtureTeacher], Drafter]:
    return lambda _: FrozenDrafter(keep)


OTHERS = {
    "best source, in turn": Other(None, True, 8),
    "best source, 1 sweep": Other(1, True, 4),
    "best source, 3 sweeps": Other(3, True, 16),
    "drafter, in turn": Other(None, "drafter", 16),
    "drafter, 2 sweeps": Other(2, "drafter", 4),
    "frozen image": Other(1, False, 8, _frozen("image")),
    "frozen image, reuse": Other(1, "reuse", 8, _frozen("image")),
    "frozen image, response": Other(1, "response", 8, _frozen("image")),
    "frozen image, best source": Other(2, True, 16, _frozen("image")),
    "frozen eps": Other(1, False, 8, _frozen("eps")),
    "frozen eps, control variate": Other(1, "control_variate", 8, _frozen("eps")),
    "frozen eps, best source": Other(1, True, 8, _frozen("eps")),
    "guided, off": Other(2, False, 8, cfg_scale=1.5),
    "guided, control variate": Other(1, "control_variate", 8, cfg_scale=1.5),
    "guided, best source": Other(2, True, 8, cfg_scale=1.5),
    "guesses of eps, off": Other(1, False, 4, schedule=OTHER_TABLE),
    "guesses of eps, control variate": Other(2, "control_variate", 8, schedule=OTHER_TABLE),
    "guesses of eps, best source": Other(1, True, 8, schedule=OTHER_TABLE),
    "anchored, in turn": Other(None, False, 8, AnchoredDrafter),
    "anchored, 1 sweep": Other(1, False, 8, AnchoredDrafter),
    "anchored, reuse": Other(1, "reuse", 8, AnchoredDrafter),
    "anchored, control variate": Other(2, "control_variate", 8, AnchoredDrafter),
    "anchored, control variate in turn": Other(None, "control_variate", 4, AnchoredDrafter),
    "anchored, response": Other(1, "response", 16, AnchoredDrafter),
    "anchored, drafter": Other(3, "drafter", 8, AnchoredDrafter),
    "anchored, best source": Other(2, True, 16, AnchoredDrafter),
}


@pytest.mark.parametrize("name", OTHERS)
def test_law_of_other_ways_to_draft(name: str) -> None:
    _check(OTHERS[name], seed=10**7 * (1 + list(OTHERS).index(name)))


@pytest.mark.parametrize("sweeps", [None, 2])
@pytest.mark.parametrize("recycle", [False, "control_variate", True])
def test_law_with_windows_of_erratic_lengths(sweeps: int | None, recycle: bool | str) -> None:
    _check(Other(sweeps, recycle, Erratic(7)), seed=10**9 // 2)


def _check(other: Other, seed: int) -> None:
    teacher, guess = CASES["nonlinear"]
    sampler = SpeculativeSampler(
        teacher,
        other.drafter(guess),
        other.schedule,
        other.window,
        other.cfg_scale,
        sweeps=other.sweeps,
        recycle=other.recycle,
    )
    judged = judge(sampler, seed)
    assert 0.03 < judged.acceptance < 0.95
    assert judged.p > LEVEL
    reference = _sequential("nonlinear", other.schedule, other.cfg_scale, 5)
    assert margins_p(judged.samples, reference) > LEVEL


def test_the_hand_made_table_has_no_x0() -> None:
    assert not Table.of(OTHER_TABLE, "cpu").has_image()
