"""The law of innovations finds what is planted in drafting and recycling.

Each bug is planted in ``free.rounds`` and judged by the innovations of one run, as a cell is, with
20,000 chains. Not every mistake breaks the law: recycled rows of the transition *before*, rows of
the neighbour sample and noise drawn anew only make drafts worse, and that is what is shown of them.
(Rows of the neighbour also make a sample depend on its batch; and a response that learns from
behind a rejection is a bias too small for this test. :mod:`tests.law.test_exactness` finds both.)
"""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

import free.rounds.round
from free import FrozenDrafter, Schedule, SpeculativeSampler
from free.ops import Advanced, WindowNoise
from free.rounds import noise as random
from free.rounds.draft import draft_window
from free.rounds.draft_source import updated_response
from free.rounds.noise import Purpose, window_numbers
from free.rounds.round import recycle
from free.rounds.state import Draft, Outcome, Recycled, Response, Samples
from free.schedule.table import Table
from tests.law.cells import LEVEL, Cell
from tests.law.paths import Run
from tests.networks import MixtureTeacher

FOUND = LEVEL / 100


def _run(recycle: bool | str) -> Run:
    cell = Cell(8, 2, recycle, drafter="unchecked", case="nearly linear")
    return cell.run(seed=3 * 10**8)


def sees_own_noise(
    drafter: Any, samples: Samples, noise: Tensor, *given: Any, table: Table, **more: Any
) -> Draft:
    """Each mean is moved by a twentieth of its own noise."""
    draft = draft_window(drafter, samples, noise, *given, table=table, **more)
    part = 0.05 * table.sigma[draft.k[:, :-1], None] * noise
    states = torch.cat([draft.states[:, :1], draft.states[:, 1:] + part], dim=1)
    return draft._replace(means=draft.means + part, states=states)


def reuses_uniforms(
    like: Tensor, seeds: Tensor, k: Tensor, *given: Any, **sizes: int
) -> WindowNoise:
    """A round's first decision takes the uniform of the transition before: if that was rejected,
    its decision has used it.
    """
    drawn = window_numbers(like, seeds, k, *given, **sizes)
    before = random.uniform(seeds, (k - 1).clamp(min=0), 0, Purpose.DECISION, (1,))
    return drawn._replace(uniforms=torch.cat([before, drawn.uniforms[:, 1:]], dim=1))


def shifted(by: int) -> Callable[..., Recycled]:
    """Transition ``t`` is given what the teacher said of ``t + by``."""

    def recycle_shifted(outcome: Outcome, advanced: Advanced) -> Recycled:
        past, length = recycle(outcome, advanced), outcome.window.length
        end = length.long().cumsum(0)
        first = (end - length)[:, None]
        last = torch.where(past.known > 1, end - 1, past.row[:, 0])[:, None]
        row = torch.minimum(torch.maximum(past.row + by, first), last)
        row[:, 0] = past.row[:, 0]
        return past._replace(row=row)

    return recycle_shifted


def of_the_neighbour(outcome: Outcome, advanced: Advanced) -> Recycled:
    """Every sample drafts from the rows of the next one in the batch."""
    past = recycle(outcome, advanced)
    other = past.row.roll(-1, 0)
    other[:, 0] = past.row[:, 0]
    return past._replace(row=other, known=past.known.roll(-1, 0))


def draws_anew() -> Callable[..., WindowNoise]:
    """Every round has its own noise, though the rows were made with that of the round before."""
    calls = 0

    def draw(like: Tensor, seeds: Tensor, k: Tensor, rounds: Any, *rest: Any, **sizes: int) -> Any:
        nonlocal calls
        calls += 1
        return window_numbers(like, seeds, k, torch.full_like(k, calls), *rest, **sizes)

    return draw


def learns_from_all(samples: Samples, draft: Draft, guess: Tensor, **made: Tensor) -> Response:
    """The response learns from all rows of the round, not from the committed ones."""
    return updated_response(samples, draft, guess, length=made["length"], advance=made["length"])


def learns_from_behind(samples: Samples, draft: Draft, guess: Tensor, **made: Tensor) -> Response:
    """The response learns from what is behind the rejection, in place of what is committed."""
    everything = learns_from_all(samples, draft, guess, **made)
    committed = updated_response(samples, draft, guess, **made)
    none = {**made, "advance": torch.zeros_like(made["advance"])}
    faded = updated_response(samples, draft, guess, **none)
    return Response(*(f + a - c for f, a, c in zip(faded, everything, committed, strict=True)))


@pytest.mark.parametrize(
    ("place", "bug", "recycle"),
    [
        ("draft_window", sees_own_noise, False),
        ("draft_window", sees_own_noise, "response"),
        ("window_numbers", reuses_uniforms, "reuse"),
        ("window_numbers", reuses_uniforms, "drafter"),
        # The teacher's row of t + 1 is of a state that the noise of t led to.
        ("recycle", shifted(1), "reuse"),
        ("recycle", shifted(1), "response"),
    ],
)
def test_what_breaks_the_law_is_found(place, bug, recycle, monkeypatch) -> None:
    monkeypatch.setattr(free.rounds.round, place, bug)
    assert _run(recycle).p < FOUND


def test_recycled_rows_of_the_transition_before(monkeypatch: pytest.MonkeyPatch) -> None:
    """They saw earlier noise only: the law is right. As drafts they need not even be worse."""
    monkeypatch.setattr(free.rounds.round, "recycle", shifted(-1))
    assert _run("reuse").p > LEVEL


def test_recycled_rows_of_the_neighbour(monkeypatch: pytest.MonkeyPatch) -> None:
    """They saw another sample's noise: the law is right, the drafts are worse."""
    right = _run("response").report
    monkeypatch.setattr(free.rounds.round, "recycle", of_the_neighbour)
    run = _run("response")
    assert run.p > LEVEL
    assert run.report.parallel_efficiency < right.parallel_efficiency - 0.05


def test_noise_drawn_anew_keeps_the_law(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(free.rounds.round, "window_numbers", draws_anew())
    assert _run("response").p > LEVEL


def test_noise_drawn_anew_loses_efficiency(monkeypatch: pytest.MonkeyPatch) -> None:
    """In many dimensions, where new noise leads far away from the states the teacher saw."""
    teacher, schedule = MixtureTeacher(256, spread=1.0), Schedule.ddpm(60)
    sampler = SpeculativeSampler(teacher, FrozenDrafter(), schedule, 8, sweeps=1, recycle="reuse")
    own = sampler.sample([0, 1] * 20).report.parallel_efficiency
    monkeypatch.setattr(free.rounds.round, "window_numbers", draws_anew())
    anew = sampler.sample([0, 1] * 20).report.parallel_efficiency
    assert anew < 0.9 * own
