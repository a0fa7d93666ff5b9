"""The record of how the sources did: what it counts, what it must not look at."""

import math

import torch

from free import FrozenDrafter, Schedule, SpeculativeSampler
from free.drafting import Draft
from free.prediction import Prediction
from free.schedule import Table
from free.sources import SOURCES, Evidence, SourceChoice, evidence
from tests.networks import CallableDrafter, MixtureTeacher

PREDICTION = Prediction.of(Table.of(Schedule.ddpm(20), "cpu"))
K = torch.tensor([2, 5])
LENGTH = torch.tensor([5, 5], dtype=torch.int32)
RECYCLED = torch.tensor([[True, True, True, False], [True, True, False, False]])


def _draft() -> tuple[Draft, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    states, teacher = torch.randn(2, 2, 5, 3, generator=generator)
    x_old, said = torch.randn(2, 2, 4, 3, generator=generator)
    candidates = torch.randn(len(SOURCES), 2, 4, 3, generator=generator)
    return Draft(states, x_old, RECYCLED, x_old, said, candidates, 1), teacher


def test_evidence_is_of_committed_recycled_transitions() -> None:
    draft, teacher = _draft()
    advance = torch.tensor([2, 4], dtype=torch.int32)
    found = evidence(draft, PREDICTION, K, teacher, LENGTH, advance)
    assert draft.candidates is not None
    for b in range(2):
        dot = square = 0.0
        rejected = [0.0] * len(SOURCES)
        for j in range(2):  # committed and recycled, of both
            moved = draft.states[b, j] - draft.x_old[b, j]
            dot += float(moved @ (teacher[b, j] - draft.said[b, j]))
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
    draft, teacher = _draft()
    advance = torch.tensor([2, 1], dtype=torch.int32)
    found = evidence(draft, PREDICTION, K, teacher, LENGTH, advance)
    for b, made in enumerate(advance.tolist()):
        teacher[b, made:] = torch.nan
        draft.states[b, made:] = torch.nan
        assert draft.candidates is not None
        draft.candidates[:, b, made:] = torch.nan
        draft.said[b, made:] = torch.nan
        draft.x_old[b, made:] = torch.nan
    changed = evidence(draft, PREDICTION, K, teacher, LENGTH, advance)
    for before, after in zip(found, changed, strict=True):
        torch.testing.assert_close(after, before, rtol=0, atol=0)


def test_the_choice_is_what_was_rejected_least_lately() -> None:
    choice, sums = SourceChoice(True), Evidence.none(2, torch.device("cpu"))
    assert choice.of(sums).tolist() == [0, 0]
    assert sums.response().tolist() == [0.0, 0.0]
    none = torch.zeros(2)
    early = torch.tensor([[1.0, 0.0, 1.0, 1.0], [1.0, 1.0, 1.0, 0.0]])
    sums = sums.and_new(Evidence(early, torch.tensor([1.0, -2.0]), torch.tensor([2.0, 4.0])))
    assert choice.of(sums).tolist() == [1, 3]
    assert sums.response().tolist() == [0.5, -0.5]
    late = torch.tensor([[0.0, 1.0, 0.0, 1.0], [0.0, 0.0, 0.0, 0.0]])
    for _ in range(8):
        sums = sums.and_new(Evidence(late, none, none))
    assert choice.of(sums).tolist() == [0, 3]
    sums = sums.keep(torch.tensor([False, True]))
    assert choice.of(sums).tolist() == [3]
    torch.testing.assert_close(sums.response(), torch.tensor([-0.5]))


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
        from free.prediction import eps_from_image

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
