"""Rules in whole runs: what they may choose, and which transitions they hear of."""

from typing import Any

import numpy as np
import pytest
import torch

from free import SpeculativeSampler
from free.window import Choice, Run, Windows
from tests.window.play import DRAFTER, SCHEDULE, TEACHER


class Rule:
    """Chooses what it is given, by transitions."""

    learns = False

    def __init__(self, choose: Any, largest: int) -> None:
        self.largest, self._choose = largest, choose

    def begin(self, run: Run) -> Windows:
        return self

    def choose(self, k: Any, known: Any) -> Choice:
        return self._choose(k, known)

    def made(self, committed: Any) -> None:
        pass


@pytest.mark.parametrize(
    ("choice", "message"),
    [
        (lambda k: Choice(0 * k, 1), r"lengths of 1 to \[1, 1\] here, got \[0, 0\]"),
        (lambda k: Choice(1 + (k > 0) * 4, 1), r"lengths of 1 to \[4, 4\] here, got \[5, 5\]"),
        (lambda k: Choice(1 + (k > 0) * 1, 1, 1), r"lengths of 1 with plain.*got \[2, 2\]"),
        (lambda k: Choice(1.5 + 0 * k, 1), "2 lengths, integers.* got float64"),
        (lambda k: Choice(1 + 0 * k, 1, 99), "0 to 40 plain transitions, got 99"),
        (lambda k: None, "a Choice, got None"),
    ],
)
def test_choices_that_no_round_can_carry_out(choice: Any, message: str) -> None:
    rule = Rule(lambda k, known: choice(k), 4)
    sampler = SpeculativeSampler(TEACHER, DRAFTER, SCHEDULE, rule, sweeps=1)
    with pytest.raises((TypeError, ValueError), match=f"window must choose {message}"):
        sampler.sample([0, 1])


def test_a_rule_hears_of_every_transition() -> None:
    """Also of those that the plain sampler made."""
    heard, left = np.zeros(3, dtype=np.int64), np.arange(3)

    def choose(k: Any, known: Any) -> Choice:
        assert np.array_equal(heard[left], k)
        rest = len(SCHEDULE) - k
        if known is None or k.min() % 2:
            return Choice(np.ones_like(k), 1, min(4, int(rest.min())))
        return Choice(np.minimum(rest, 3), 1)

    class Counting(Rule):
        def made(self, committed: Any) -> None:
            nonlocal left
            heard[left] += committed.advance
            left = left[committed.going]

    sampler = SpeculativeSampler(TEACHER, DRAFTER, SCHEDULE, Counting(choose, 3), sweeps=1)
    sampler.sample([0, 1, 2])
    assert heard.tolist() == [len(SCHEDULE)] * 3


def test_a_window_wider_than_any_run() -> None:
    """However many rows a saved setting asks for, a run has no more than its steps."""
    widest, whole = (
        SpeculativeSampler(TEACHER, DRAFTER, SCHEDULE, window, sweeps=1).sample([0, 1]).samples
        for window in (2**70, len(SCHEDULE))
    )
    assert torch.equal(widest, whole)
