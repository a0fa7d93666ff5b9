"""Laws without noise, within a tolerance: 0 is the plain sampler, and more leads so far astray."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from free import (
    AutoWindow,
    FrozenDrafter,
    Schedule,
    SequentialSampler,
    SpeculativeSampler,
    TeacherOutput,
)
from free.rounds import tolerance as room
from free.rounds.round import Rounds
from free.rounds.state import Samples
from free.schedule.clipping import Clipping
from free.window.costs import CostCurve, RoundCosts
from tests.networks import FlowTeacher, MixtureTeacher

#: Modes that are wide enough for few runs to pass by a ridge between two of them.
SMOOTH = MixtureTeacher(16, spread=0.8)


def with_history(clip: float | None = 0.9) -> Schedule:
    """A solver of second order for a network that predicts the image, which may be limited."""
    plain = Schedule.ddpm(12)
    noise, after = np.append(plain.noise[1:], 0.0), np.append(plain.signal[1:], 1.0)
    a = noise / plain.noise
    c = -0.3 * (after - a * plain.signal)
    c[0] = 0.0
    return Schedule(
        plain.timesteps,
        a,
        after - a * plain.signal - c,
        np.zeros(12),
        plain.signal,
        plain.noise,
        image=np.stack([np.zeros(12), np.ones(12)]),
        c=c,
        clipping=None if clip is None else Clipping(clip),
    )


def by_element(x: Tensor, t: Tensor, y: Tensor) -> TeacherOutput:
    """Sums and products alone, element by element: its rounding does not depend on the batch."""
    x = x.clamp(-2, 2)
    return TeacherOutput(x - 0.1 * x * x * x + (y - 1)[:, None] * 0.25)


by_element.sample_shape = (4,)  # type: ignore[attr-defined]


def within(
    tolerance: float, schedule: Schedule, teacher: Any, window: Any = 8, **options: Any
) -> SpeculativeSampler:
    settings = {"sweeps": 1, "recycle": True, **options}
    return SpeculativeSampler(
        teacher,
        FrozenDrafter(),
        schedule,
        window,
        verifier="tolerance",
        tolerance=tolerance,
        **settings,
    )


# --- no tolerance --------------------------------------------------------------------------------


@pytest.mark.parametrize("recycle", [True, "reuse", False])
@pytest.mark.parametrize("clip", [0.9, None])
def test_without_any_it_is_the_plain_sampler_to_the_last_bit(
    clip: float | None, recycle: bool | str
) -> None:
    schedule, labels = with_history(clip), [0, 1, 2, 1]
    expected = SequentialSampler(by_element, schedule).sample(labels, 5).samples
    samples, report = within(0.0, schedule, by_element, recycle=recycle).sample(labels, 5)
    assert torch.equal(samples, expected)
    assert report.deviation_by_sample == [0.0] * 4


@pytest.mark.parametrize(
    ("schedule", "teacher"),
    [
        (Schedule.ddpm(20, stochasticity=0.0), SMOOTH),
        (Schedule.sde("linear", 20, 0.0), FlowTeacher(16)),
    ],
    ids=["DDIM", "Euler of flow matching"],
)
def test_without_any_samplers_that_people_use_are_themselves(schedule, teacher) -> None:
    expected = SequentialSampler(teacher, schedule).sample([0, 1], 5).samples
    samples, report = within(0.0, schedule, teacher).sample([0, 1], 5)
    torch.testing.assert_close(samples, expected, rtol=1e-5, atol=1e-5)
    assert report.rounds <= 20


def test_dpm_solver_goes_on_from_the_image_that_follows() -> None:
    """Its history is the image at the rolled state, not at the one that the teacher saw."""
    diffusers = pytest.importorskip("diffusers")
    solver = diffusers.DPMSolverMultistepScheduler(use_karras_sigmas=True)
    schedule = Schedule.from_scheduler(solver, 30, stochasticity=0.0)
    expected = SequentialSampler(SMOOTH, schedule).sample([0, 1] * 8, 5).samples
    off = []
    for amount in (0.0, 0.001, 0.01):
        samples, report = within(amount, schedule, SMOOTH).sample([0, 1] * 8, 5)
        off.append(float((samples - expected).square().mean().sqrt()))
    assert off[0] < 1e-5
    assert off[1] < 0.001
    assert off[2] < 0.01
    assert report.parallel_efficiency > 3


# --- how far -------------------------------------------------------------------------------------

RUNS, STEPS = 1000, 40
SILENT = Schedule.sde("vp", STEPS, 0.0)


@pytest.fixture(scope="module")
def serial() -> Tensor:
    return SequentialSampler(SMOOTH, SILENT).sample(torch.arange(RUNS) % 2, 0).samples


def deviations(amount: float, serial: Tensor) -> tuple[Tensor, Tensor, float]:
    """Of each run, and as reported; and steps a round."""
    samples, report = within(amount, SILENT, SMOOTH).sample(torch.arange(RUNS) % 2, 0)
    off = (samples - serial).double().square().mean(1).sqrt()
    return off, torch.tensor(report.deviation_by_sample), report.parallel_efficiency


#: Of the runs' deviations in tolerances, at most: the median, and the 90th of 100.
MEDIAN, MOST = 0.2, 0.75
#: How many times the reported deviation the 95th of 100 runs is off, at most.
FACTOR = 2.5


def holds(amount: float, serial: Tensor) -> bool:
    off, reported, _ = deviations(amount, serial)
    median, most = (off / amount).quantile(torch.tensor([0.5, 0.9]).double()).tolist()
    factor = float((off / reported).quantile(0.95))
    return median < MEDIAN and most < MOST and factor < FACTOR


@pytest.mark.parametrize("amount", [0.03, 0.01, 0.003])
def test_runs_are_as_far_off_as_the_tolerance_and_the_report_say(
    amount: float, serial: Tensor
) -> None:
    *_, fewer = deviations(amount, serial)
    assert holds(amount, serial)
    assert fewer > {0.03: 5.4, 0.01: 4.6, 0.003: 3.9}[amount]


def one_too_many(offset: Tensor, length: Tensor, tolerance: float) -> Tensor:
    return (standing(offset, length, tolerance) + 1).minimum(length - 1).long()


def of_the_row_before(offset: Tensor, length: Tensor, tolerance: float) -> Tensor:
    return standing(offset.roll(1, 1), length, tolerance)


def as_drafted(seen: Tensor, means: Tensor, guess: Tensor, **others: Any) -> Any:
    """The prefix as the drafts had it: only what follows from the last of its states."""
    rolled = rolled_again(seen, means, guess, **others)
    return rolled._replace(means=means)


standing, rolled_again = room._standing, room._roll_again


@pytest.mark.parametrize(
    ("name", "bug"),
    [("_standing", one_too_many), ("_standing", of_the_row_before), ("_roll_again", as_drafted)],
)
def test_planted_bugs_lead_further_astray(name, bug, serial, monkeypatch) -> None:
    monkeypatch.setattr(room, name, bug)
    assert not holds(0.01, serial)


# --- batches, joins, trajectories ----------------------------------------------------------------

LABELS, SEEDS = [0, 1, 2, 1, 0], [40, 41, 42, 43, 44]


@pytest.mark.parametrize("window", [5, 12])
def test_a_sample_does_not_depend_on_its_batch(window: int) -> None:
    sampler = within(0.01, with_history(), by_element, window)
    together, report = sampler.sample(LABELS, SEEDS)
    assert 0 < report.acceptance < 1
    for i, (label, seed) in enumerate(zip(LABELS, SEEDS, strict=True)):
        alone, own = sampler.sample([label], seed)
        torch.testing.assert_close(alone[0], together[i], rtol=1e-5, atol=1e-5)
        assert own.rounds_by_sample == [report.rounds_by_sample[i]]
        assert own.deviation == pytest.approx(report.deviation_by_sample[i], rel=0.01)


def finished(rounds: Rounds, samples: Samples, joining: list[Samples]) -> dict[int, Tensor]:
    """The images by number; between two rounds another of the ``joining`` joins."""
    images: dict[int, Tensor] = {}
    while len(samples.k):
        window = rounds.draft(samples, rounds.width)
        outcome = rounds.verify(samples, window, by_element(window.x, window.t, window.y))
        samples = rounds.advance(samples, outcome)
        done = samples.k == len(rounds.table.sigma)
        images |= dict(zip(samples.number[done].tolist(), samples.x[done], strict=True))
        samples = samples.keep(~done)
        if joining:
            samples = samples.join(joining.pop())
    return images


def test_who_joins_or_leaves_changes_nobodys_image() -> None:
    """A sample that joins others begins with a row of its own, as one that is alone may too."""
    sampler = within(0.01, with_history(), by_element, 4)
    y, seeds = torch.tensor(LABELS), torch.tensor(SEEDS)
    x = torch.randn(5, 4, generator=torch.Generator().manual_seed(3))
    rounds, _ = sampler.begin([0] * 5)
    rounds = dataclasses.replace(rounds, blind=False)
    one = [rounds.begin(y[i : i + 1], seeds[i : i + 1], x[i : i + 1], i) for i in range(5)]
    joined = finished(rounds, one[0].join(one[1]), [one[4], one[3], one[2]])
    for i in range(5):
        alone = finished(rounds, one[i], [])[i]
        torch.testing.assert_close(alone, joined[i], rtol=1e-5, atol=1e-5)


def test_the_trajectory_is_the_one_that_was_gone() -> None:
    schedule = with_history(None)
    samples, _ = result = within(0.02, schedule, by_element).sample([0, 1], 5, trajectory=True)
    path = result.trajectory.states
    assert torch.equal(path[:, -1], samples)
    expected = SequentialSampler(by_element, schedule).sample([0, 1], 5, trajectory=True)
    assert (path - expected.trajectory.states).abs().max() < 0.05
    assert (result.trajectory.sigma == 0).all()


@pytest.mark.parametrize("tolerance", [0.0, 0.01])
def test_the_automatic_window_learns_from_offsets(tolerance: float) -> None:
    costs = CostCurve([1, 64], [1.0, 1.1])
    little = CostCurve([1, 64], [0.01, 0.01])
    known = RoundCosts(costs, little, little, {1: ("rows", little)})
    rule = AutoWindow(costs=known)
    _, report = within(tolerance, SILENT, SMOOTH, rule).sample([0, 1], 5)
    assert report.parallel_efficiency > (3.0 if tolerance else 0.99)


# --- what is refused -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"tolerance": -0.1}, "tolerance must be a finite number >= 0, got -0.1"),
        ({"tolerance": float("nan")}, "tolerance must be a finite number >= 0, got nan"),
        ({"tolerance": "little"}, "tolerance must be a finite number >= 0, got 'little'"),
        ({"tolerance": None}, "tolerance must be given with verifier 'tolerance', .* got None"),
        (
            {"verifier": "reflection"},
            "tolerance must be None unless verifier is 'tolerance', got 0.01 with .*'reflection'",
        ),
        (
            {"schedule": Schedule.ddpm(10)},
            "schedule must have sigma = 0 everywhere with verifier 'tolerance', got 0.* at step 0: "
            "a law with noise is sampled exactly by verifier 'reflection'; stochasticity=0",
        ),
        (
            {"verifier": "reflection", "tolerance": None},
            r"verifier='tolerance', tolerance=0.01 for samples within .*\(stochasticity=0.01\)",
        ),
    ],
)
def test_what_cannot_be_is_refused(options: dict[str, Any], message: str) -> None:
    settings: dict[str, Any] = {"verifier": "tolerance", "tolerance": 0.01, **options}
    schedule = settings.pop("schedule", SILENT)
    with pytest.raises(ValueError, match=message):
        SpeculativeSampler(SMOOTH, "frozen", schedule, 8, **settings)
