"""Windows of changing width leave the law as it is, unless the choice sees noise still to be used.

20,000 chains each, judged by their innovations as a cell of :mod:`tests.law.test_drafting` is.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch

from free import AutoWindow, SpeculativeSampler
from free.rounds import noise as random
from free.rounds.noise import Purpose
from free.rounds.round import committed_deltas
from free.window import Choice, Committed, Run, Windows
from free.window.costs import CostCurve, RoundCosts
from free.window.rule import Integers
from tests.law.paths import innovations_p, run
from tests.law.test_drafting import CASES, LABELS, LEVEL, SCHEDULE
from tests.networks import CallableDrafter

LARGEST = 7


class Capricious:
    """Widths that follow from all that a rule may look at: the last committed deltas' digits, how
    far the sample came in the last round, and where it is.
    """

    learns = True
    largest = LARGEST

    def begin(self, run: Run) -> Windows:
        self._steps, self._whim = len(run.table.sigma), np.zeros(len(run.labels), dtype=np.int64)
        return self

    def choose(self, k: Integers, known: Integers | None) -> Choice:
        lengths = 1 + (self._whim + 3 * k) % self.largest
        if known is None:
            return Choice(np.ones_like(k), 1, 1)
        return Choice(np.minimum(lengths, self._steps - k), 1 + int(self._whim.sum()) % 2)

    def made(self, committed: Committed) -> None:
        seen = 0.0 if committed.deltas is None else np.nansum(committed.deltas, axis=1)
        self._whim = (committed.advance + np.asarray(1e4 * seen).astype(np.int64))[committed.going]


class Peeking(Capricious):
    """Ends the window before a transition whose noise points one way: it is drawn from the target
    then, and otherwise drafted.
    """

    def begin(self, run: Run) -> Windows:
        self._seeds = run.seeds
        self._alive = torch.arange(len(run.seeds))
        return super().begin(run)

    def choose(self, k: Integers, known: Integers | None) -> Choice:
        choice = super().choose(k, known)
        if known is None:
            return choice
        at, seeds = torch.from_numpy(k), self._seeds[self._alive]
        z = random.normal(seeds, at, 0 * at, Purpose.TRANSITION, (2,))[:, 0].numpy()
        lengths = np.where(z > 0, 1, np.minimum(2, self._steps - k))
        return Choice(lengths, 1)

    def made(self, committed: Committed) -> None:
        super().made(committed)
        self._alive = self._alive[torch.from_numpy(committed.going)]


def _costs() -> RoundCosts:
    """Rows are nearly free up to a point: windows of many widths, and now and then none."""
    rows = [1, len(LABELS), 3 * len(LABELS), 10 * len(LABELS)]
    teacher = CostCurve(rows, [1.0, 2.0, 3.0, 12.0])
    little = CostCurve([1, len(LABELS)], [0.01, 0.2])
    return RoundCosts(teacher, little, little, {1: ("rows", little), 2: ("rows", little)})


def _p(
    rule: object, recycle: bool | str, sweeps: int | str, verifier: str = "reflection"
) -> tuple[float, float]:
    teacher, guess = CASES["nonlinear"]
    sampler = SpeculativeSampler(
        teacher,
        CallableDrafter(guess),
        SCHEDULE,
        rule,
        sweeps=sweeps,
        recycle=recycle,
        verifier=verifier,
    )
    made = run(sampler, LABELS, seed=7 * 10**8)
    return innovations_p(made.innovations, made.states), made.report.parallel_efficiency


@pytest.mark.parametrize("recycle", [False, "reuse", "response", True])
def test_law_of_automatic_windows(recycle: bool | str) -> None:
    p, efficiency = _p(AutoWindow(LARGEST, _costs()), recycle, "auto")
    assert p > LEVEL
    assert efficiency > 1.1


def test_law_of_automatic_windows_of_blocks() -> None:
    p, efficiency = _p(AutoWindow(LARGEST, _costs()), False, "auto", "block")
    assert p > LEVEL
    assert efficiency > 1.1


@pytest.mark.parametrize("recycle", [False, "control_variate", "response", True])
def test_law_of_capricious_windows(recycle: bool | str) -> None:
    p, _ = _p(Capricious(), recycle, 1)
    assert p > LEVEL


def test_a_choice_that_sees_noise_is_found() -> None:
    p, _ = _p(Peeking(), "response", 1)
    assert p < 1e-12


def test_nothing_behind_a_rejection_is_told() -> None:
    """What the rule is told are committed transitions; the others' deltas see their noises."""
    means, target = torch.zeros(3, 4, 2), torch.ones(3, 5, 2)
    sigma, length = torch.full((3, 5), 0.5), torch.tensor([5, 5, 3], dtype=torch.int32)
    advance = torch.tensor([2, 5, 3], dtype=torch.int32)
    deltas = committed_deltas(means, target, sigma, length, advance)
    told = torch.tensor([[1, 1, 0, 0], [1, 1, 1, 1], [1, 1, 0, 0]]).bool()
    assert torch.equal(~deltas.isnan(), told)
    torch.testing.assert_close(deltas[told], torch.full((8,), 8.0**0.5))
