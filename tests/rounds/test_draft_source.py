"""The response: what it is a sum of, what it must not look at, and what it is worth."""

import torch
from torch import Tensor

from free import FrozenDrafter, Schedule, SpeculativeSampler, TeacherOutput
from free.models.output import TeacherRows
from free.reference.draft import DRAFTER, RESPONSE, REUSE, SOURCES
from free.rounds.draft_source import source_of, updated_response
from free.rounds.state import Draft, Recycled, Response, Samples
from free.schedule.table import Table, eps_from_image

LENGTH = torch.tensor([5, 5], dtype=torch.int32)
KNOWN = torch.tensor([4, 3])  # of the transition just made, and of three or two more


def _round() -> tuple[Samples, Draft, Tensor]:
    """Samples with a response, their draft of five rows, and what the teacher says of it."""
    generator = torch.Generator().manual_seed(0)
    states, guess = torch.randn(2, 2, 5, 3, generator=generator)
    x_old, old_guess = torch.randn(2, 10, 3, generator=generator)
    k = torch.tensor([2, 5])[:, None] + torch.arange(5)
    rows = TeacherRows(x_old, None, None, x_old, torch.zeros(10, dtype=torch.int64))
    past = Recycled(rows, old_guess, torch.arange(10).view(2, 5), KNOWN)
    response = Response(torch.tensor([1.0, -2.0]), torch.tensor([2.0, 4.0]))
    samples = Samples.begin(k[:, 0], k[:, 0], states[:, 0], 5)
    return (
        samples._replace(past=past, response=response),
        Draft(states, states[:, 1:], k, 1),
        guess,
    )


def _updated(samples: Samples, draft: Draft, guess: Tensor, *advance: int) -> Response:
    made = torch.tensor(advance, dtype=torch.int32)
    return updated_response(samples, draft, guess, length=LENGTH, advance=made)


def test_the_response_is_of_committed_recycled_transitions() -> None:
    samples, draft, guess = _round()
    found = _updated(samples, draft, guess, 2, 4)
    past = samples.past
    for b in range(2):
        old = past.row[b, 1:3]  # committed and recycled are two transitions, of both
        moved = draft.states[b, :2] - past.rows.x[old]
        dot = 0.8 * samples.response.dot[b] + (moved * (guess[b, :2] - past.guess[old])).sum()
        square = 0.8 * samples.response.square[b] + moved.square().sum()
        torch.testing.assert_close(found.dot[b], dot, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(found.square[b], square, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(found.slope(), found.dot / found.square)


def test_what_lies_behind_a_rejection_is_not_looked_at() -> None:
    """It depends on noises still to be used (the trap): here it may be anything at all."""
    samples, draft, guess = _round()
    found = _updated(samples, draft, guess, 2, 1)
    past = samples.past
    for b, made in enumerate([2, 1]):
        guess[b, made:] = draft.states[b, made:] = torch.nan
        past.guess[past.row[b, made + 1 :]] = past.rows.x[past.row[b, made + 1 :]] = torch.nan
    changed = _updated(samples, draft, guess, 2, 1)
    for before, after in zip(found, changed, strict=True):
        torch.testing.assert_close(after, before, rtol=0, atol=0)


def test_what_recycle_asks_for() -> None:
    assert Response(torch.zeros(1), torch.zeros(1)).slope().tolist() == [0.0]
    assert SOURCES == ("response", "reuse", "drafter")
    assert [source_of(r) for r in (True, False, *SOURCES)] == [0, DRAFTER, RESPONSE, REUSE, DRAFTER]


def test_a_response_is_found() -> None:
    """A teacher whose prediction moves by .4 of what its state does: recycling learns it, and
    then no draft fails for it.
    """
    schedule = Schedule.ddpm(60)
    table = Table.of(schedule, "cpu")

    def teacher(x: Tensor, t: Tensor, y: Tensor) -> TeacherOutput:
        k = (table.timesteps[None] == t[:, None]).int().argmax(1)
        return TeacherOutput(eps_from_image(x, 0.4 * x, table.signal[k]))

    def efficiency(recycle: bool | str) -> float:
        sampler = SpeculativeSampler(teacher, FrozenDrafter(), schedule, 16, recycle=recycle)
        return sampler.sample(range(50), shape=(16,)).report.parallel_efficiency

    plain, reuse, response, best = map(efficiency, (False, "reuse", "response", True))
    assert plain < reuse < response
    assert response > 1.2 * reuse
    assert best == response  # True stands for it
