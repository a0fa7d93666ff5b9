"""The record of how the sources did: what it counts, what it must not look at."""

import math

import torch

from free import FrozenDrafter, Schedule, SpeculativeSampler
from free.models.output import TeacherRows
from free.reference.draft import SOURCES
from free.rounds.draft_source import SourceChoice, with_round
from free.rounds.state import Draft, Evidence, Recycled
from free.schedule.table import Prediction, Table
from tests.networks import CallableDrafter, MixtureTeacher

PREDICTION = Prediction.of(Table.of(Schedule.ddpm(20), "cpu"))
K = torch.tensor([2, 5])
LENGTH = torch.tensor([5, 5], dtype=torch.int32)
KNOWN = torch.tensor([4, 3])  # of the transition just made, and of three or two more


def _draft() -> tuple[Draft, Recycled, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    states, teacher = torch.randn(2, 2, 5, 3, generator=generator)
    x_old, said = torch.randn(2, 10, 3, generator=generator)
    candidates = torch.randn(len(SOURCES), 2, 4, 3, generator=generator)
    at = K[:, None] + torch.arange(5)
    rows = TeacherRows(x_old, None, None, x_old, torch.zeros(10, dtype=torch.int64))
    past = Recycled(rows, said, torch.arange(10).view(2, 5), KNOWN)
    return Draft(states, states[:, 1:], at, PREDICTION.sigma[at], candidates, 1), past, teacher


def _evidence(
    draft: Draft, past: Recycled, teacher: torch.Tensor, advance: torch.Tensor
) -> Evidence:
    none = Evidence.none(2, teacher.device)
    return with_round(none, draft, PREDICTION, past, teacher, LENGTH, advance)


def test_evidence_is_of_committed_recycled_transitions() -> None:
    draft, past, teacher = _draft()
    advance = torch.tensor([2, 4], dtype=torch.int32)
    found = _evidence(draft, past, teacher, advance)
    x_old, said = past.rows.x[past.row], past.guess[past.row]
    assert draft.candidates is not None
    for b in range(2):
        dot = square = 0.0
        rejected = [0.0] * len(SOURCES)
        for j in range(2):  # committed and recycled, of both
            moved = draft.states[b, j] - x_old[b, j + 1]
            dot += float(moved @ (teacher[b, j] - said[b, j + 1]))
            square += float(moved @ moved)
            for source in range(len(SOURCES)):
                error = draft.candidates[source, b, j] - teacher[b, j]
                k = K[b] + j
                delta = float((PREDICTION.b[k] * error / PREDICTION.sigma[k]).norm())
                rejected[source] += math.erf(delta / 8**0.5)
        torch.testing.assert_close(found.dot[b], torch.tensor(dot), rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(found.square[b], torch.tensor(square), rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(found.rejected[b], torch.tensor(rejected), rtol=1e-4, atol=1e-5)


def test_what_lies_behind_a_rejection_is_not_looked_at() -> None:
    """It depends on noises still to be used (the trap): here it may be anything at all."""
    draft, past, teacher = _draft()
    advance = torch.tensor([2, 1], dtype=torch.int32)
    found = _evidence(draft, past, teacher, advance)
    for b, made in enumerate(advance.tolist()):
        teacher[b, made:] = torch.nan
        draft.states[b, made:] = torch.nan
        assert draft.candidates is not None
        draft.candidates[:, b, made:] = torch.nan
        past.guess[past.row[b, made + 1 :]] = torch.nan
        past.rows.x[past.row[b, made + 1 :]] = torch.nan
    changed = _evidence(draft, past, teacher, advance)
    for before, after in zip(found, changed, strict=True):
        torch.testing.assert_close(after, before, rtol=0, atol=0)


def test_the_choice_is_what_was_rejected_least_lately() -> None:
    """Lately: old evidence fades from round to round."""
    choice, sums = SourceChoice(True), Evidence.none(2, torch.device("cpu"))
    assert choice.of(sums).tolist() == [0, 0]
    assert sums.response().tolist() == [0.0, 0.0]
    early = torch.tensor([[1.0, 0.0, 1.0, 1.0], [1.0, 1.0, 1.0, 0.0]])
    sums = Evidence(early, torch.tensor([1.0, -2.0]), torch.tensor([2.0, 4.0]))
    assert choice.of(sums).tolist() == [1, 3]
    assert sums.response().tolist() == [0.5, -0.5]
    draft, past, teacher = _draft()
    assert draft.candidates is not None
    draft.candidates[:] = teacher[:, :4]  # all are right now, but for two sources of a sample
    draft.candidates[[1, 3], 0] += 10.0
    made = torch.tensor([2, 2], dtype=torch.int32)
    for _ in range(8):
        sums = with_round(sums, draft, PREDICTION, past, teacher, LENGTH, made)
    assert choice.of(sums).tolist() == [0, 3]
    before = sums.response()
    sums = sums.keep(torch.tensor([False, True]))
    assert choice.of(sums).tolist() == [3]
    torch.testing.assert_close(sums.response(), before[1:])


def test_old_evidence_fades() -> None:
    draft, past, teacher = _draft()
    old = Evidence(torch.rand(2, len(SOURCES)), torch.rand(2), torch.rand(2))
    nothing = torch.ones(2, dtype=torch.int32)  # a window of one row drafts nothing
    new = with_round(old, draft, PREDICTION, past, teacher, nothing, nothing)
    for before, after in zip(old, new, strict=True):
        torch.testing.assert_close(after, 0.8 * before)


def test_a_fixed_source() -> None:
    fixed = SourceChoice("reuse")
    assert fixed.of(Evidence.none(2, torch.device("cpu"))).tolist() == [2, 2]
    assert not fixed.compares
    assert not fixed.corrects


def test_a_response_is_found() -> None:
    """A teacher whose prediction moves by .4 of what its state does: recycling learns it, and
    then no draft fails for it.
    """
    schedule = Schedule.ddpm(60)
    table = Table.of(schedule, "cpu")

    def teacher(x: torch.Tensor, t: torch.Tensor, y: torch.Tensor) -> object:
        from free import TeacherOutput
        from free.schedule.table import eps_from_image

        k = (table.timesteps[None] == t[:, None]).int().argmax(1)
        return TeacherOutput(eps_from_image(x, 0.4 * x, table.signal[k]))

    def rounds(recycle: bool | str) -> float:
        sampler = SpeculativeSampler(teacher, FrozenDrafter(), schedule, 16, recycle=recycle)
        return sampler.sample(range(50), shape=(16,)).report.parallel_efficiency

    plain, reuse, response, best = map(rounds, (False, "reuse", "response", True))
    assert plain < reuse < response
    assert response > 1.2 * reuse
    assert best > 0.95 * response


def test_recycling_saves_rounds() -> None:
    """With a poor drafter on a nonlinear teacher; the law is tested in law/."""
    teacher, drafter = MixtureTeacher(16), CallableDrafter(MixtureTeacher(16, shift=0.4))
    schedule = Schedule.ddpm(100)

    def rounds(recycle: bool | str) -> float:
        sampler = SpeculativeSampler(teacher, drafter, schedule, 8, sweeps=1, recycle=recycle)
        return sampler.sample([0] * 50).report.parallel_efficiency

    off = rounds(False)
    for source in ("response", "control_variate", "reuse", True):
        assert rounds(source) > 1.1 * off
