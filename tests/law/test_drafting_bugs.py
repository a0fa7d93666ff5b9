"""The law tests of :mod:`tests.law.test_drafting` find what is planted in drafting and recycling.

Each bug is planted in ``free.rounds`` and judged by the innovations of one run, as a cell is, with
20,000 chains unless it says otherwise. Not every mistake breaks the law: recycled rows of the
transition *before*, rows of the neighbour sample and noise drawn anew only make drafts worse, and
that is what is shown of them. (Rows of the neighbour also make a sample depend on its batch, which
:mod:`tests.law.test_exactness` forbids.)
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import free.rounds.draft_source
import free.rounds.round
from free import FrozenDrafter, Schedule, SpeculativeSampler, TeacherOutput
from free.rounds import noise as random
from free.rounds.draft import draft_window
from free.rounds.draft_source import with_round
from free.rounds.noise import Purpose
from free.rounds.state import Draft, Evidence, Recycled, recycle
from tests.law.paths import Run, innovations_p, run
from tests.law.test_drafting import CASES, LABELS, LEVEL, SCHEDULE
from tests.networks import CallableDrafter, Carry, MixtureTeacher


class Unchecked(CallableDrafter):
    """Takes whatever carry it is given; the bugs would not get past the checks."""

    def predict(self, x: Tensor, k: Tensor, y: Tensor, carry: Carry) -> tuple[Tensor, Carry]:
        return self.guess(x, self.table.timesteps[k], y).eps, Carry(k)


def _run(recycle: bool | str) -> Run:
    teacher, guess = CASES["nearly linear"]
    sampler = SpeculativeSampler(teacher, Unchecked(guess), SCHEDULE, 8, sweeps=2, recycle=recycle)
    return run(sampler, LABELS, seed=3 * 10**8)


def _p(made: Run) -> float:
    return innovations_p(made.innovations, made.states)


def _sees_own_noise(*arguments: Any) -> Draft:
    """Each mean is moved by a twentieth of its own noise."""
    draft = draft_window(*arguments)
    _, prediction, _, k, _, _, z, *_ = arguments
    drafted = draft.means.shape[1]
    if drafted == 0:
        return draft
    at = (k[:, None] + torch.arange(drafted)).clamp(max=len(prediction.sigma) - 1)
    part = 0.05 * prediction.sigma[at][..., None] * z
    states = torch.cat([draft.states[:, :1], draft.states[:, 1:] + part], dim=1)
    return draft._replace(means=draft.means + part, states=states)


_window = random.window_numbers


def _reuses_uniforms(
    seeds: Tensor, k: Tensor, rounds: Tensor | None, *rest: Any
) -> tuple[Tensor, Tensor, Tensor]:
    """A round's first decision takes the uniform of the transition before: if that was rejected,
    its decision has used it.
    """
    z, u, fresh = _window(seeds, k, rounds, *rest)
    u[:, :1] = random.uniform(seeds, (k - 1).clamp(min=0), 0, Purpose.DECISION, (1,))
    return z, u, fresh


def _shifted(by: int) -> Callable[..., Recycled]:
    """Transition ``t`` is given what the teacher said of ``t + by``."""

    def recycle_shifted(rows: Any, guess: Tensor, length: Tensor, *rest: Any) -> Recycled:
        past = recycle(rows, guess, length, *rest)
        end = length.long().cumsum(0)
        first = (end - length)[:, None]
        last = torch.where(past.known > 1, end - 1, past.row[:, 0])[:, None]
        row = torch.minimum(torch.maximum(past.row + by, first), last)
        row[:, 0] = past.row[:, 0]
        return past._replace(row=row)

    return recycle_shifted


def _of_the_neighbour(*arguments: Any) -> Recycled:
    """Every sample drafts from the rows of the next one in the batch."""
    past = recycle(*arguments)
    other = past.row.roll(-1, 0)
    other[:, 0] = past.row[:, 0]
    return past._replace(row=other, known=past.known.roll(-1, 0))


def _draws_anew() -> Callable[..., tuple[Tensor, Tensor, Tensor]]:
    """Every round has its own noise, though the rows were made with that of the round before."""
    calls = 0

    def draw(seeds: Tensor, k: Tensor, rounds: Any, *rest: Any) -> tuple[Tensor, Tensor, Tensor]:
        nonlocal calls
        calls += 1
        return _window(seeds, k, torch.full_like(k, calls), *rest)

    return draw


@pytest.mark.parametrize("recycle", [False, "reuse", "control_variate", "response", True])
def test_a_mean_that_sees_its_own_noise(
    recycle: bool | str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(free.rounds.round, "draft_window", _sees_own_noise)
    assert _p(_run(recycle)) < LEVEL / 100


@pytest.mark.parametrize("recycle", ["reuse", "response", "drafter"])
def test_a_uniform_used_twice(recycle: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(free.rounds.round, "window_numbers", _reuses_uniforms)
    assert _p(_run(recycle)) < LEVEL / 100


@pytest.mark.parametrize("recycle", ["reuse", "control_variate", "response", True])
def test_recycled_rows_of_the_next_transition(
    recycle: bool | str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The teacher's row of ``t + 1`` is of a state that the noise of ``t`` led to."""
    monkeypatch.setattr(free.rounds.round, "recycle", _shifted(1))
    assert _p(_run(recycle)) < LEVEL / 100


@pytest.mark.parametrize("recycle", ["reuse", "control_variate", "response"])
def test_recycled_rows_of_the_transition_before(
    recycle: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They saw earlier noise only: the law is right. As drafts they need not even be worse."""
    monkeypatch.setattr(free.rounds.round, "recycle", _shifted(-1))
    assert _p(_run(recycle)) > LEVEL


@pytest.mark.parametrize("recycle", ["reuse", "control_variate", "response", True])
def test_recycled_rows_of_the_neighbour(
    recycle: bool | str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They saw another sample's noise: the law is right, the drafts are worse."""
    right = _run(recycle).report
    monkeypatch.setattr(free.rounds.round, "recycle", _of_the_neighbour)
    made = _run(recycle)
    assert _p(made) > LEVEL
    assert made.report.parallel_efficiency < right.parallel_efficiency - 0.05


@pytest.mark.parametrize("recycle", ["reuse", "control_variate", "response", True])
def test_noise_drawn_anew_keeps_the_law(
    recycle: bool | str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(free.rounds.round, "window_numbers", _draws_anew())
    assert _p(_run(recycle)) > LEVEL


def test_noise_drawn_anew_loses_efficiency(monkeypatch: pytest.MonkeyPatch) -> None:
    """In many dimensions, where new noise leads far away from the states the teacher saw."""
    teacher, schedule = MixtureTeacher(256, spread=1.0), Schedule.ddpm(100)
    sampler = SpeculativeSampler(teacher, FrozenDrafter(), schedule, 8, sweeps=1, recycle="reuse")
    own = sampler.sample([0, 1] * 25).report.parallel_efficiency
    monkeypatch.setattr(free.rounds.round, "window_numbers", _draws_anew())
    anew = sampler.sample([0, 1] * 25).report.parallel_efficiency
    assert anew < 0.9 * own


class Alternating(MixtureTeacher):
    """Steps in which a choice between sources is told most by what must not be looked at.

    The teacher is rough in one coordinate, so that reuse is poor. As a drafter it is displaced in
    the other one at even transitions; at odd ones it is good where that coordinate is positive,
    else useless. Whether it was good at ``t`` so tells the sign of the noise at ``t - 1``.
    """

    def __init__(self, drafts: bool = False) -> None:
        super().__init__(2)
        self.drafts = drafts

    def __call__(self, x: Tensor, t: Tensor, y: Tensor) -> TeacherOutput:
        rough = 2.5 * torch.sin(300 * x[:, 1])
        if not self.drafts:
            return TeacherOutput(torch.stack([0 * rough, rough], dim=1))
        displaced = torch.where(t % 2 == 0, 2.0, 8.0 * (x[:, 0] < 0))
        return TeacherOutput(
            torch.stack([displaced, rough + 2.5 * torch.sin(777 * x[:, 1])], dim=1)
        )


ALTERNATING = Schedule(
    np.arange(12)[::-1], np.full(12, 0.3), np.ones(12), np.append(np.ones(11), 0)
)


def _behind(*arguments: Any) -> Evidence:
    """What is behind the rejection, in place of what is committed."""
    sums, *given, length, _ = arguments
    everything, committed = with_round(sums, *given, length, length), with_round(*arguments)
    faded = [free.rounds.draft_source._MEMORY * part for part in sums]
    return Evidence(*(f + a - b for f, a, b in zip(faded, everything, committed, strict=True)))


@pytest.mark.parametrize("planted", [False, True])
def test_a_source_chosen_behind_the_rejection(
    planted: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The bias is small: it takes a teacher made for it, the last round's evidence alone and
    60,000 chains (660,000 innovations). :mod:`tests.law.test_exactness` finds it in any run.
    """
    monkeypatch.setattr(free.rounds.draft_source, "_MEMORY", 0.0)
    if planted:
        monkeypatch.setattr(free.rounds.round, "with_round", _behind)
    sampler = SpeculativeSampler(
        Alternating(), Unchecked(Alternating(True)), ALTERNATING, 12, sweeps=2, recycle=True
    )
    p = _p(run(sampler, torch.zeros(60_000, dtype=torch.int64), seed=0))
    assert p < LEVEL / 100 if planted else p > LEVEL
