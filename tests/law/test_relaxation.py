"""The certificate of a relaxed run holds, says what it should, and its tests have teeth.

Three laws, each with its own power:

- *Single transitions.* With the same noises and uniforms the relaxed rule keeps exactly ``a' - a``
  more drafts on average than the exact one: an equality, so that a bound that is too large is found
  as well as one that is too small.
- *Likelihood ratios.* Weighted by ``exp(-l)``, relaxed draws have the exact law.
- *Whole runs.* The measured total variation does not exceed the reported bound nor the budget.
"""

import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple
from unittest import mock

import pytest
import torch
from torch import Tensor

import free.rounds.relaxation
from free import Relaxation, Report, Schedule, SequentialSampler, SpeculativeSampler, TeacherOutput
from free.ops import VerifiedRelaxed, verify_window, verify_window_relaxed
from free.reference.decide import RULES
from free.rounds.report import Recorder
from tests.law import planted
from tests.networks import CallableDrafter, MixtureTeacher
from tests.windows import random_window

Verify = Callable[..., VerifiedRelaxed]
#: A correct sampler passes this many standard errors once in 30,000 tests.
ERRORS = 4.0


class Unsure(MixtureTeacher):
    """With variance channels that depend on the state, beyond [-1, 1] on both sides."""

    def __call__(self, x: Tensor, t: Tensor, y: Tensor) -> TeacherOutput:
        return super().__call__(x, t, y)._replace(variance=1.3 * torch.sin(3 * x) + 0.3)


def measured_tv(x: Tensor, y: Tensor) -> tuple[float, float]:
    """Total variation of the laws of ``x [n, d]`` and ``y [n, d]`` by histogram, and its standard
    error. ``d`` is 1 (40 bins) or 2 (12 x 12); bins hold about equally many along each axis.

    One half of the samples says which bins have more of ``x``, the other how much more: so what is
    measured does not exceed the total variation, apart from the error; the plain sum over bins
    would, by its noise. Row ``i`` of the two may be draws that depend on each other, as with one
    seed; the less they differ, the smaller the error.
    """
    pooled, count = torch.cat([x, y]), 40 if x.shape[1] == 1 else 12
    levels = torch.arange(1, count) / count
    bins = [torch.zeros(len(x), dtype=torch.int64), torch.zeros(len(x), dtype=torch.int64)]
    for axis in range(x.shape[1]):
        column = pooled[:, axis].sort().values
        edges = column[(levels * len(column)).long()]
        for side, sample in enumerate((x, y)):
            bins[side] = count * bins[side] + torch.bucketize(sample[:, axis].contiguous(), edges)
    total = count ** x.shape[1]
    half = len(x) // 2
    first = [torch.bincount(side[:half], minlength=total) for side in bins]
    more = first[0] > first[1]
    difference = more[bins[0][half:]].double() - more[bins[1][half:]].double()
    return float(difference.mean()), float(difference.std() / len(difference) ** 0.5)


# --- single transitions ------------------------------------------------------------------------


def extra_acceptance(verify: Verify, rule: str, delta: float, given: bool) -> float:
    """How many drafts more are kept than ``bound`` says, in standard errors; 200,000 drafts.

    Finds a bound that is wrong by 0.002 at a gain of 0.1 in 99 of 100 tests.
    """
    window = random_window(200_000, 2, (2,), delta=delta)
    spent = torch.zeros(200_000, dtype=torch.float64)
    u = 0.2 + window.states[:, 0, :1].abs() if given else None
    given_window = dict(zip(planted.Relaxed._fields, window, strict=False))
    out = verify(**given_window, uncertainty=u, spent=spent, rule=rule, strength=0.4)
    more = (out.accepted - verify_window(*window).accepted).double() - out.bound
    return float(more.mean() / more.std() * len(more) ** 0.5)


@pytest.mark.parametrize(
    ("rule", "delta", "given"),
    [("temper", 0.1, True), ("temper", 1.0, False), ("allow", 1.0, True), ("allow", 3.0, False)],
)
def test_the_bound_is_the_extra_acceptance(rule: str, delta: float, given: bool) -> None:
    assert abs(extra_acceptance(verify_window_relaxed, rule, delta, given)) < ERRORS


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("bug", [planted.negative_bound, planted.no_clip, planted.sees_uniform])
def test_bugs_in_the_bound_are_found(bug: Callable[..., VerifiedRelaxed], rule: str) -> None:
    assert abs(extra_acceptance(planted.planted_relaxed(bug), rule, 1.0, True)) > 3 * ERRORS


# --- whole runs --------------------------------------------------------------------------------


class Chain:
    """A short chain whose last noisy transition is what is drawn: nothing blurs what it relaxes, so
    that the bound is nearly attained. The drafter's means are 0.8 sigma off.
    """

    schedule = Schedule([3, 2, 1, 0], [1.0, 0.2, 0.2, 1.0], [0.0, 0.8, 0.8, 0.0], [1, 1, 1, 0])

    def __init__(self, dim: int, shift: float = 0.0) -> None:
        self.sample_shape = (dim,)
        self.shift = torch.full((dim,), shift / dim**0.5)

    def __call__(self, x: Tensor, t: Tensor, y: Tensor) -> TeacherOutput:
        return TeacherOutput(0.25 * x.sin() + self.shift)


class Setting(NamedTuple):
    """A run; without steps, of the chain."""

    dim: int
    steps: int | None
    window: int
    recycle: bool | str
    rule: str
    strength: float
    budget: float | None
    uncertainty: str

    @property
    def relaxation(self) -> Relaxation:
        steps = len(self.schedule)
        tables = {
            "rising": [0.2 + k / steps for k in range(steps)],
            "last": [float(k == steps - 2) for k in range(steps)],
        }
        source = tables.get(self.uncertainty, self.uncertainty)
        return Relaxation(self.rule, self.strength, self.budget, source)

    @property
    def schedule(self) -> Schedule:
        return Chain.schedule if self.steps is None else Schedule.ddpm(self.steps)

    def sampler(self, relaxation: Relaxation | None) -> SpeculativeSampler:
        teacher, drafter = Chain(self.dim), Chain(self.dim, shift=1.0)
        if self.steps is not None:
            teacher, drafter = Unsure(self.dim), MixtureTeacher(self.dim, shift=0.2, spread=0.3)
        return SpeculativeSampler(
            teacher,
            CallableDrafter(drafter),
            self.schedule,
            self.window,
            recycle=self.recycle,
            relaxation=relaxation,
        )


CHOSEN = [
    Setting(1, None, 4, False, "temper", 1.0, None, "discrepancy"),
    Setting(2, None, 2, False, "allow", 0.3, None, "rising"),
    Setting(2, None, 4, "reuse", "allow", 0.3, 0.2, "discrepancy"),
    Setting(1, None, 4, False, "allow", 0.3, 0.05, "rising"),
    Setting(2, None, 4, "response", "temper", 0.5, 0.01, "discrepancy"),
    Setting(1, 6, 4, False, "allow", 0.4, None, "rising"),
    Setting(2, 6, 8, "response", "allow", 0.4, 0.2, "discrepancy"),
    Setting(1, 12, 4, False, "temper", 1.0, None, "learned_variance"),
    Setting(2, 12, 8, "response", "allow", 0.3, 0.05, "learned_variance"),
    Setting(1, 12, 8, True, "temper", 2.0, None, "discrepancy"),
    Setting(2, 12, 2, "drafter", "temper", 1.0, 0.01, "rising"),
]
SETTINGS = [*CHOSEN, *(setting._replace(dim=3 - setting.dim) for setting in CHOSEN)]


class Run(NamedTuple):
    samples: Tensor
    report: Report
    log_likelihood: Tensor


def run(setting: Setting, samples: int, bug: Any = None) -> Run:
    kept: list[Tensor] = []
    note = Recorder.relaxed
    verify = planted.planted_relaxed(bug or planted.exactly)

    def relaxed(self: Recorder, spent: Tensor, log_likelihood: Tensor) -> None:
        kept.append(log_likelihood)
        note(self, spent, log_likelihood)

    with (
        mock.patch.object(free.rounds.relaxation, "verify_window_relaxed", verify),
        mock.patch.object(Recorder, "relaxed", relaxed),
    ):
        drawn, report = setting.sampler(setting.relaxation).sample(torch.arange(samples) % 3, 0)
    return Run(drawn, report, kept[0])


@functools.cache
def _exact(setting: Setting, samples: int) -> Tensor:
    """With the seeds of the relaxed run."""
    return setting.sampler(None).sample(torch.arange(samples) % 3, 0).samples


def excess(relaxed: Run, exact: Tensor, told: list[float]) -> float:
    """Measured total variation beyond the mean of what the report says, in standard errors."""
    measured, error = measured_tv(relaxed.samples, exact)
    said = torch.tensor(told, dtype=torch.float64)
    error = math.hypot(error, float(said.std()) / len(said) ** 0.5)
    return (measured - float(said.mean())) / error


def weights_off(relaxed: Run, exact: Tensor) -> float:
    """Largest deviation, in standard errors, of the relaxed draws weighted by ``exp(-l)`` from the
    exact ones: of their number and of three moments in each coordinate. 1e-4 is forgiven, for
    what happens too rarely to have an error.
    """
    one, weight = torch.ones(len(exact), 1), (-relaxed.log_likelihood).exp()
    columns = [torch.cat([one, x, x.square(), x.sin()], 1) for x in (relaxed.samples, exact)]
    off = weight[:, None] * columns[0] - columns[1]
    error = off.std(0) / len(off) ** 0.5
    return float((off.mean(0).abs() / (error + 1e-4 / ERRORS)).max())


@pytest.mark.parametrize(
    "setting", [pytest.param(s, marks=[] if s in CHOSEN else pytest.mark.slow) for s in SETTINGS]
)
def test_the_certificate_holds(setting: Setting) -> None:
    """20,000 samples. The error of the measurement is 0.001 to 0.003, as the run parts from the
    exact one with the same seeds in at most a fifth of the samples: a bound that is too small by
    0.02 is found in 99 of 100 tests.
    """
    relaxed, exact = run(setting, 20_000), _exact(setting, 20_000)
    report = relaxed.report
    assert excess(relaxed, exact, report.tv_bound_by_sample) < ERRORS
    assert excess(relaxed, exact, report.tv_estimate_by_sample) < ERRORS
    assert weights_off(relaxed, exact) < ERRORS
    # Runs part no more often than that, and almost as often.
    spent = torch.tensor(report.tv_bound_by_sample, dtype=torch.float64)
    more = (relaxed.samples != exact).any(1).double() - spent
    assert float(more.mean()) < ERRORS * float(more.std()) / len(more) ** 0.5
    if setting.budget is None:
        assert float(more.mean()) > -0.3 * float(spent.mean())
        assert float(spent.mean()) > 0.05  # something happened
    else:
        assert float(spent.max()) <= setting.budget
        measured, error = measured_tv(relaxed.samples, exact)
        assert measured <= setting.budget + ERRORS * error


@pytest.mark.slow
@pytest.mark.parametrize("setting", SETTINGS)
def test_the_certificate_holds_against_the_plain_sampler(setting: Setting) -> None:
    """The same against the sequential sampler with other seeds: 200,000 samples, errors 0.002."""
    relaxed, labels = run(setting, 200_000), torch.arange(200_000) % 3
    plain = SequentialSampler(setting.sampler(None).teacher, setting.schedule)
    exact = plain.sample(labels, 10**9).samples
    assert excess(relaxed, exact, relaxed.report.tv_bound_by_sample) < ERRORS
    assert excess(relaxed, exact, relaxed.report.tv_estimate_by_sample) < ERRORS
    if setting.budget is not None:
        measured, error = measured_tv(relaxed.samples, exact)
        assert measured <= setting.budget + ERRORS * error


TIGHT = Setting(1, None, 4, False, "allow", 0.5, None, "last")


@pytest.mark.parametrize("bug", [None, planted.negative_bound, planted.sees_uniform])
def test_bugs_break_the_certificate(bug: Callable[..., VerifiedRelaxed] | None) -> None:
    """Where the bound is nearly attained, one that is too small is found in the samples' law."""
    relaxed = run(TIGHT, 20_000, bug)
    off = excess(relaxed, _exact(TIGHT, 20_000), relaxed.report.tv_bound_by_sample)
    assert off > 2 * ERRORS if bug else off < ERRORS


@pytest.mark.parametrize("bug", [None, planted.no_mirror, planted.sees_uniform])
def test_bugs_break_the_likelihood(bug: Callable[..., VerifiedRelaxed] | None) -> None:
    off = weights_off(run(TIGHT, 20_000, bug), _exact(TIGHT, 20_000))
    assert off > 2 * ERRORS if bug else off < ERRORS


@pytest.mark.parametrize("bug", [None, planted.one_too_late])
def test_a_budget_that_forgets_the_draft_is_found(bug) -> None:
    most = max(run(TIGHT._replace(budget=0.05), 2_000, bug).report.tv_bound_by_sample)
    assert most > 0.05 if bug else most <= 0.05


def test_the_histogram_measures() -> None:
    """Against known distances: of N(0, 1) and N(0.3, 1), 2 Phi(0.15) - 1 = 0.1192; and none."""
    g = torch.Generator().manual_seed(0)
    for dim in (1, 2):
        x, y = (torch.randn(100_000, dim, generator=g) for _ in range(2))
        measured, error = measured_tv(x, y)
        assert abs(measured) < ERRORS * error
        x[:, 0] += 0.3
        measured, error = measured_tv(x, y)
        assert 0.105 < measured < 0.1192 + ERRORS * error
        assert error < 0.004
