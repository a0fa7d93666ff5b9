"""The four steps in a loop of one's own, with samples that join and leave between rounds."""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor

from free import Schedule, SequentialSampler, SpeculativeSampler, TeacherOutput, load_pretrained
from free.models.guidance import GuidedTeacher
from free.rounds.noise import Purpose, normal
from free.rounds.round import Rounds
from free.rounds.row_selection import WantedRows
from free.rounds.state import Samples
from free.sampling.assembly import assemble
from tests.networks import CallableDrafter, MixtureTeacher
from tests.sampling.cuda_graphs.captures import graphed

SCHEDULE = Schedule.ddpm(30)
LABELS, SEEDS = torch.tensor([0, 1, 2, 1, 0, 2]), torch.arange(6) + 40


class Drawn(NamedTuple):
    """Of each sample, by its number: the image, rounds, and accepted drafts."""

    x: Tensor
    rounds: Tensor
    accepted: Tensor

    def same(self, other: Drawn, which: Any = slice(None)) -> None:
        """But for rounding, which depends on the batch."""
        torch.testing.assert_close(self.x[which], other.x[which], rtol=0, atol=3e-3)
        assert self.rounds[which].tolist() == other.rounds[which].tolist()
        assert self.accepted[which].tolist() == other.accepted[which].tolist()


class Server:
    """A loop of one's own, with the settings of a sampler."""

    def __init__(self, sampler: SpeculativeSampler) -> None:
        plan, self.sweeps = sampler._plan(), sampler.sweeps
        self.teacher: Any = plan.teacher
        self.steps = len(plan.schedule)
        self.rounds = assemble(
            plan,
            len(SEEDS),
            torch.device("cpu"),
            width=plan.rule.largest,
            rows=WantedRows(),
            phase=lambda name: nullcontext(),
        )

    def begin(self, first: int = 0, end: int = len(SEEDS)) -> Samples:
        """Requests ``first .. end - 1``, numbered so."""
        y, seeds = LABELS[first:end], SEEDS[first:end]
        x = normal(seeds, 0, 0, Purpose.INITIAL, self.teacher.sample_shape)
        begun = self.rounds.begin(y, seeds, x)
        return begun._replace(number=begun.number + first)

    def round(self, samples: Samples, drawn: Drawn) -> Samples:
        """The four steps."""
        widths = (self.steps - samples.k).clamp(max=self.rounds.width)
        window = self.rounds.draft(samples, widths, self.sweeps)
        output = self.teacher(window.x, window.t, window.y)
        outcome = self.rounds.verify(samples, window, output)
        going = widths > 0
        after = self.rounds.advance(samples, outcome)
        drawn.accepted[samples.number] += outcome.accepted
        drawn.x[samples.number[going]] = after.x[going]
        drawn.rounds[samples.number] += going
        return after

    @torch.no_grad()
    def serve(self, *groups: tuple[int, int, Samples], change: Any = None) -> Drawn:
        """Draw all samples. Each group ``(joins, apart, samples)`` makes ``apart`` rounds by itself
        and joins the others before round ``joins``; ``change`` is made after the second.
        """
        x = torch.zeros(len(SEEDS), *self.teacher.sample_shape)
        drawn = Drawn(x, torch.zeros_like(SEEDS), torch.zeros_like(SEEDS))
        samples, number, waiting = None, 0, list(groups)
        while samples is None or len(samples.k) or waiting:
            while waiting and (samples is None or waiting[0][0] <= number):
                _, apart, joining = waiting.pop(0)
                for _ in range(apart):
                    joining = self.round(joining, drawn)
                samples = joining if samples is None else samples.join(joining)
            samples, number = self.round(samples, drawn), number + 1
            samples = samples.keep(samples.k < self.steps)
            if change is not None and number == 2:
                samples = change(samples)
        return drawn


def digits() -> Server:
    """The trained drafter, with the settings that serve it best but for a shorter window."""
    teacher, drafter = load_pretrained("mnist")
    settings = {**drafter.sampling, "window": 5}
    return Server(
        SpeculativeSampler(teacher, drafter, Schedule.ddpm(12), cfg_scale=1.5, **settings)
    )


def frozen(**options: Any) -> Server:
    options = {"window": 6, "recycle": True, **options}
    return Server(SpeculativeSampler(MixtureTeacher(4), "frozen", SCHEDULE, **options))


def in_turn() -> Server:
    """Autoregression without recycling."""
    drafter = CallableDrafter(MixtureTeacher(4, shift=0.15), in_turn=True)
    return Server(SpeculativeSampler(MixtureTeacher(4), drafter, SCHEDULE, 4))


#: When three groups of two come, and how many rounds they have made by themselves.
ARRIVALS = {
    "before the first round": ((0, 0), (0, 0), (0, 0)),
    "one by one": ((0, 0), (1, 0), (3, 0)),
    "on their way": ((0, 0), (2, 3), (2, 1)),
    "on their way to a beginner": ((0, 0), (0, 2), (4, 2)),
}


@pytest.fixture(scope="module", params=[digits, frozen, in_turn])
def server(request: pytest.FixtureRequest) -> tuple[Server, Drawn]:
    """A server, and what each pair of its requests gets alone."""
    server = request.param()
    alone = [server.serve((0, 0, server.begin(first, first + 2))) for first in (0, 2, 4)]
    return server, Drawn(*map(sum, zip(*alone, strict=True)))


def joined(server: Server, arrivals: tuple[tuple[int, int], ...]) -> Drawn:
    groups = [(*when, server.begin(2 * i, 2 * i + 2)) for i, when in enumerate(arrivals)]
    return server.serve(*groups)


@pytest.mark.parametrize("arrivals", ARRIVALS)
def test_a_request_that_joins_gets_what_it_gets_alone_and_the_others_theirs(
    server: tuple[Server, Drawn], arrivals: str
) -> None:
    served, alone = server
    assert int(alone.accepted.sum()) > 0
    joined(served, ARRIVALS[arrivals]).same(alone)


@pytest.mark.parametrize(
    "places",
    [torch.tensor([True, False, True, True, False, False]), torch.tensor([3, 0, 2])],
    ids=["mask", "places"],
)
def test_a_sample_that_leaves_changes_no_other_image(server, places) -> None:
    served, alone = server
    rest = served.serve((0, 0, served.begin()), change=lambda samples: samples.keep(places))
    rest.same(alone, [0, 2, 3])
    assert rest.rounds[[1, 4, 5]].tolist() == [2, 2, 2]


def test_samples_that_want_no_row_disturb_no_others() -> None:
    """Finished ones that have not left."""
    served = frozen()
    right, samples = served.serve((0, 0, served.begin())), served.begin()
    drawn = Drawn(*map(torch.zeros_like, right))
    while bool((samples.k < served.steps).any()):
        samples = served.round(samples, drawn)
    assert len(set(drawn.rounds.tolist())) > 1
    assert samples.k.tolist() == [served.steps] * 6
    drawn.same(right)


@pytest.mark.parametrize(
    ("sampler", "options"),
    [
        (SpeculativeSampler(MixtureTeacher(4), "frozen", SCHEDULE, 6, sweeps=1, recycle=True),
         {"sweeps": 1}),
        (SequentialSampler(MixtureTeacher(4), SCHEDULE), {"window": 1}),
    ],
    ids=["speculative", "sequential"],
)  # fmt: skip
def test_samplers_and_graphs_make_the_same_rounds(sampler, options, monkeypatch) -> None:
    """The loop here, the samplers' and the graphs' call the same functions, and draw the same."""
    calls: list[str] = []

    def counted(name: str, step: Callable[..., Any]) -> Callable[..., Any]:
        return lambda *given, **more: (calls.append(name), step(*given, **more))[1]

    for name in ("draft", "verify", "advance"):
        monkeypatch.setattr(Rounds, name, counted(name, getattr(Rounds, name)))
    served = frozen(**options)
    drawn = served.serve((0, 0, served.begin()))
    own, calls[:] = list(calls), []
    eager = sampler.sample(LABELS, SEEDS)
    assert calls == own == ["draft", "verify", "advance"] * eager.report.rounds
    assert drawn.rounds.tolist() == eager.report.rounds_by_sample
    assert int(drawn.accepted.sum()) == eager.report.accepted
    torch.testing.assert_close(drawn.x, eager.samples, rtol=0, atol=1e-4)
    calls.clear()
    replayed = graphed(sampler).sample(LABELS, SEEDS)
    assert replayed.report.execution == "graph"
    assert calls[:3] == ["draft", "verify", "advance"]
    torch.testing.assert_close(replayed.samples, drawn.x, rtol=0, atol=1e-4)


def test_who_joins_when_all_have_left_is_asked_about_one_row() -> None:
    served = frozen()
    drawn = Drawn(served.begin().x, *torch.zeros(2, 6).long())
    none = served.round(served.begin(), drawn).keep(torch.zeros(6, dtype=torch.bool))
    samples = none.join(served.begin(0, 2))
    window = served.rounds.draft(samples, 6)
    assert window.wanted.tolist() == [1, 1]
    outcome = served.rounds.verify(samples, window, served.teacher(window.x, window.t, window.y))
    assert served.rounds.advance(samples, outcome).k.tolist() == [1, 1]


WRONG: list[tuple[Callable[[Tensor], Any], type[Exception], str]] = [
    (lambda eps: eps, TypeError, "teacher must return a TeacherOutput, got Tensor"),
    (lambda eps: TeacherOutput(eps.long()), TypeError, "floating-point eps, got torch.int64"),
    (lambda eps: TeacherOutput(eps[:, :1]), ValueError, r"eps of shape \[\d+, 4\], got \[\d+, 1\]"),
    (lambda eps: TeacherOutput(eps[:1]), ValueError, r"eps of shape \[\d+, 4\], got \[1, 4\]"),
    (
        lambda eps: TeacherOutput(eps.index_fill(0, torch.tensor(len(eps) - 1), math.nan)),
        FloatingPointError,
        r"teacher returned a non-finite eps at step \[\d\] for sample \[5\]",
    ),
]


@pytest.mark.parametrize(("cfg_scale", "width"), [(1.0, 1), (1.0, 6), (1.5, 1), (1.5, 6)])
def test_wrong_outputs_are_refused(cfg_scale: float, width: int) -> None:
    served = frozen(cfg_scale=cfg_scale)
    samples = served.begin()
    if width > 1:
        samples = served.round(samples, Drawn(samples.x, *torch.zeros(2, 6).long()))
    window = served.rounds.draft(samples, width)
    assert len(window.x) == 6 * width * (1 + (cfg_scale > 1))
    for output, error, message in WRONG:
        with pytest.raises(error, match=message):
            served.rounds.verify(samples, window, output(torch.zeros_like(window.x)))


def test_widths_that_no_round_has_are_refused() -> None:
    served = frozen()
    samples = served.round(served.begin(), Drawn(served.begin().x, *torch.zeros(2, 6).long()))
    for widths, got in ((7, 7), (-1, -1), (torch.tensor([2, 2, 9, 2, 2, 2]), 9)):
        with pytest.raises(ValueError, match=rf"^widths must be in 0\.\.6, got {got}$"):
            served.rounds.draft(samples, widths)
    finished = samples._replace(k=samples.k.index_fill(0, torch.tensor(3), 30))
    for widths in (1, 6):  # one number is cut where a sample has finished
        window = served.rounds.draft(finished, widths)
        assert window.wanted.tolist() == [widths, widths, widths, 0, widths, widths]


@pytest.mark.parametrize("width", [1, 6])
def test_what_nobody_wants_may_be_anything(width: int) -> None:
    """Of a sample of no rows the network's NaN ends no run; of any other it does."""
    served = frozen()
    samples = served.round(served.begin(), Drawn(served.begin().x, *torch.zeros(2, 6).long()))
    widths = torch.full((6,), width).index_fill(0, torch.tensor(0), 0)
    window = served.rounds.draft(samples, widths)
    for row, fails in ((0, False), (1, True)):
        eps = torch.zeros_like(window.x).index_fill(0, torch.tensor(row), math.nan)
        with pytest.raises(FloatingPointError) if fails else nullcontext():
            served.rounds.verify(samples, window, TeacherOutput(eps))


@pytest.mark.parametrize("sweeps", [1, 3, None])
def test_a_mixture_of_nothing_drafts_as_none_does(sweeps: int | None) -> None:
    """Its windows are rolled in turn, over states that the drafter has been asked about."""
    nothing = Schedule.ddpm(30, variance=lambda x, t: torch.zeros(len(x)))
    reports = [
        SpeculativeSampler(MixtureTeacher(4), CallableDrafter(MixtureTeacher(4, shift=0.15)),
                           schedule, 6, sweeps=sweeps).sample(LABELS, SEEDS).report
        for schedule in (SCHEDULE, nothing)
    ]  # fmt: skip
    assert reports[0].accepted_by_step == reports[1].accepted_by_step
    assert 0 < reports[0].accepted < reports[0].proposed


def test_no_samples_are_refused() -> None:
    served = frozen()
    none = served.begin().keep(torch.zeros(6, dtype=torch.bool))
    with pytest.raises(ValueError, match="^samples must be at least one, got none$"):
        served.rounds.draft(none, 1)


class Combining(MixtureTeacher):
    """Combines guidance by itself, where it is asked to, as an engine's graph."""

    def guided(self, guidance: Any) -> Any:
        return GuidedTeacher(self, guidance)


def test_an_own_loop_is_guided_and_drafts_as_the_sampler() -> None:
    """Also with a teacher that would combine: whoever calls the network gets both rows."""
    sampler = SpeculativeSampler(
        Combining(4), "frozen", SCHEDULE, 6, cfg_scale=3.0, sweeps=1, recycle=True
    )
    expected = sampler.sample([0, 1], 7)
    rounds, samples = sampler.begin([0, 1], 7)
    images, calls = torch.empty_like(samples.x), 0
    while len(samples.k):
        window = rounds.draft(samples, 6)
        calls += window.draft.calls
        output = Combining(4)(window.x, window.t, window.y)
        samples = rounds.advance(samples, rounds.verify(samples, window, output))
        images[samples.number] = samples.x
        samples = samples.keep(samples.k < 30)
    torch.testing.assert_close(images, expected.samples, rtol=0, atol=1e-4)
    assert calls == expected.report.drafter_calls


def test_an_own_loop_keeps_no_gradients() -> None:
    weight = torch.ones(1, requires_grad=True)
    sampler = SpeculativeSampler(MixtureTeacher(4), "frozen", SCHEDULE, 6, recycle=True)
    rounds, samples = sampler.begin([0, 1], 7)
    for _ in range(3):
        window = rounds.draft(samples, 6)
        eps = weight * MixtureTeacher(4)(window.x, window.t, window.y).eps
        output = TeacherOutput(eps, feature=eps[:, :, None], variance=eps)
        samples = rounds.advance(samples, rounds.verify(samples, window, output))
    kept = (samples.x, samples.response.dot, samples.past.guess, *samples.past.rows)
    assert not any(part.requires_grad for part in kept)


@pytest.mark.parametrize("window", [1, 6])
def test_an_observer_may_keep_what_it_was_shown(window: int) -> None:
    shown: list[tuple[Tensor, Tensor]] = []
    sampler = SpeculativeSampler(MixtureTeacher(4), "frozen", SCHEDULE, window)
    sampler.sample([0, 1], observer=lambda _, states: shown.append((states, states.clone())))
    assert len(shown) > 5
    assert all(torch.equal(states, copy) for states, copy in shown)


@pytest.mark.parametrize("make", [digits, frozen])
def test_rows_of_others_after_joining_are_found(make, monkeypatch) -> None:
    """The bug that joining invites: places in a call that is no longer the only one."""

    def without_offset(self: Samples, others: Samples) -> Samples:
        both = join(self, others)
        row = both.past.row.clone()
        row[len(self.k) :] -= len(self.past.rows.k)
        return both._replace(past=both.past._replace(row=row))

    join, served = Samples.join, make()
    right = joined(served, ARRIVALS["on their way"])
    monkeypatch.setattr(Samples, "join", without_offset)
    wrong = joined(served, ARRIVALS["on their way"])
    assert (wrong.x - right.x)[2:].abs().max() > 0.01
    wrong.same(right, slice(2))
