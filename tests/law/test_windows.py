"""Windows of changing width leave the law as it is, unless the choice sees noise still to be used.

20,000 chains each, judged by their innovations as a cell of :mod:`tests.law.cells` is.
"""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from free import AutoWindow
from free.rounds import noise as random
from free.rounds.noise import Purpose
from free.rounds.round import committed_deltas
from free.window import Choice, Committed, Run, Windows
from free.window.costs import CostCurve, RoundCosts
from free.window.rule import Integers
from tests.law import paths
from tests.law.cells import LABELS, LEVEL, Cell

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


def _run(rule: object, *settings: Any, **more: Any) -> paths.Run:
    return Cell(rule, *settings, drafter="unchecked", **more).run(seed=7 * 10**8)


@pytest.mark.parametrize(
    ("recycle", "verifier"),
    [(False, "reflection"), (False, "block"), ("reuse", "reflection"), (True, "reflection")],
)
def test_law_of_automatic_windows(recycle: bool | str, verifier: str) -> None:
    run = _run(AutoWindow(LARGEST, _costs()), "auto", recycle, verifier)
    assert run.p > LEVEL
    assert run.report.parallel_efficiency > 1.1


@pytest.mark.parametrize("recycle", [False, "response"])
def test_law_of_capricious_windows(recycle: bool | str) -> None:
    assert _run(Capricious(), 1, recycle).p > LEVEL


def test_a_choice_that_sees_noise_is_found() -> None:
    assert _run(Peeking(), 1, "response").p < 1e-12


def test_nothing_behind_a_rejection_is_told() -> None:
    """What the rule is told are committed transitions; the others' deltas see their noises."""
    nothing, length = torch.zeros(3, 5, 2), torch.tensor([5, 5, 3], dtype=torch.int32)
    outcome = SimpleNamespace(
        advance=torch.tensor([2, 5, 3], dtype=torch.int32),
        means=torch.ones(3, 5, 2),
        sigma=torch.full((3, 5), 0.5),
        offsets=None,
        window=SimpleNamespace(draft=SimpleNamespace(means=nothing[:, :4]), length=length),
    )
    deltas = committed_deltas(outcome)  # type: ignore[arg-type]
    told = torch.tensor([[1, 1, 0, 0], [1, 1, 1, 1], [1, 1, 0, 0]]).bool()
    assert torch.equal(~deltas.isnan(), told)
    torch.testing.assert_close(deltas[told], torch.full((8,), 8.0**0.5))
