"""The samplers: counts, invariance, edges and refusals. Their law is in ``law/test_runs.py``."""

import dataclasses
import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from free import (
    DiT,
    DiTConfig,
    FrozenDrafter,
    Schedule,
    SequentialSampler,
    SpeculativeSampler,
    TeacherOutput,
)
from tests.networks import CallableDrafter, MixtureTeacher, randomized
from tests.sampling.cuda_graphs.captures import graphed

TEACHER = MixtureTeacher(4)
POOR = CallableDrafter(MixtureTeacher(4, shift=0.15))
SCHEDULE = Schedule.ddpm(30)


def _sampler(window: int, drafter: object = POOR, **options) -> SpeculativeSampler:
    return SpeculativeSampler(TEACHER, drafter, SCHEDULE, window, **options)


@pytest.mark.parametrize("cfg_scale", [1.0, 1.5])
def test_window_of_one_is_the_sequential_sampler(cfg_scale: float) -> None:
    """It needs no drafter; recycling, it has nothing to."""
    labels, seeds = [0, 1, 2], [5, 6, 2**63 - 1]
    plain = SequentialSampler(TEACHER, SCHEDULE, cfg_scale).sample(labels, seeds)
    for drafter, recycle in ((POOR, False), (POOR, True), (None, False)):
        sampler = _sampler(1, drafter, cfg_scale=cfg_scale, recycle=recycle)
        one = sampler.sample(labels, seeds)
        torch.testing.assert_close(one.samples, plain.samples, rtol=1e-6, atol=1e-6)
        assert one.report.rounds == plain.report.rounds == 30
        assert one.report.parallel_efficiency == 1.0
        assert one.report.drafter_calls == one.report.proposed == one.report.kept_bytes == 0
    with pytest.raises(TypeError, match="drafter must have begin, predict and carry_from"):
        _sampler(2, None)


def test_kept_bytes_are_those_of_a_teacher_call() -> None:
    report = _sampler(8, recycle=True).sample([0, 1, 2]).report
    rows = 3 * 8
    assert report.kept_bytes == rows * (3 * 4 * 4 + 8)  # eps, state and guess; transition


def test_the_drafter_of_the_docs() -> None:
    """The examples of docs/drafting.md draft as FrozenDrafter does."""
    text = (Path(__file__).parents[2] / "docs/drafting.md").read_text()
    scope: dict[str, object] = {}
    for name, recycle in (("KeepImage", True), ("KeepChange", False)):
        start = "import copy" if recycle else f"class {name}"
        exec(text[text.index(start) :].split("```")[0], scope)
        scope["torch"] = torch
        own, frozen = (
            _sampler(4, drafter, sweeps=1, recycle=recycle).sample([0, 1]).samples
            for drafter in (scope[name](), FrozenDrafter())
        )
        torch.testing.assert_close(own, frozen, rtol=1e-4, atol=1e-4)


def test_labels_and_seeds_may_be_strided() -> None:
    labels, seeds = torch.arange(6)[::2] % 3, torch.arange(6)[::2]
    assert not labels.is_contiguous() or not seeds.is_contiguous()
    for sampler in (_sampler(4), SequentialSampler(TEACHER, SCHEDULE)):
        expected = sampler.sample(labels.tolist(), seeds.tolist()).samples
        assert torch.equal(sampler.sample(labels, seeds).samples, expected)
        one = sampler.sample(torch.tensor([1]).expand(3), torch.tensor([7]).expand(3)).samples
        assert torch.equal(one, one[:1].expand(3, 4))


def test_frozen_by_name() -> None:
    named = _sampler(4, "frozen", recycle=True).sample([0, 1])
    built = _sampler(4, FrozenDrafter(), recycle=True).sample([0, 1])
    torch.testing.assert_close(named.samples, built.samples, rtol=0, atol=0)
    flow = Schedule(range(9, -1, -1), [1.0] * 10, [-0.1] * 10, [0.3] * 9 + [0.0])  # without x0
    sampler = SpeculativeSampler(TEACHER, "frozen", flow, 4, sweeps=1, recycle=True)
    assert sampler.sample([0, 1]).samples.isfinite().all()


@pytest.mark.parametrize("recycle", [False, "response", "reuse"])
def test_without_sweeps_no_drafter_is_asked(recycle: bool | str) -> None:
    """The drafts are those of the last x0, kept, whatever drafter there is."""
    kept = _sampler(4, FrozenDrafter(), sweeps=1, recycle=recycle).sample([0, 1])
    mute = _sampler(4, Mute(), sweeps=0, recycle=recycle).sample([0, 1])
    torch.testing.assert_close(mute.samples, kept.samples, rtol=1e-4, atol=1e-5)
    assert mute.report.rounds_by_sample == kept.report.rounds_by_sample
    assert mute.report.drafter_calls == 0 < kept.report.drafter_calls


class Mute(FrozenDrafter):
    def predict(self, *given: object) -> None:
        raise AssertionError("was asked")

    carry_from = predict  # type: ignore[assignment]


def test_drafter_errors_name_the_samples_own_number() -> None:
    """Also when others have left the batch."""

    class Failing(FrozenDrafter):
        def predict(self, x, k, y, carry):
            eps, carry = super().predict(x, k, y, carry)
            return (eps * torch.nan if len(set(y.tolist())) == 1 else eps), carry

    rounds = _sampler(4, FrozenDrafter(), sweeps=1).sample([0, 1, 2], [4, 4, 5]).report
    last = max(range(3), key=rounds.rounds_by_sample.__getitem__)
    with pytest.raises(FloatingPointError, match=rf"for sample \[{last}\]"):
        _sampler(4, Failing(), sweeps=1).sample([0, 1, 2], [4, 4, 5])


@pytest.mark.parametrize("window", [2, 8, 29, 10**9])
def test_perfect_drafter_advances_a_full_window(window: int) -> None:
    report = _sampler(window, CallableDrafter(TEACHER)).sample([0, 1]).report
    # One row first, since nothing is verified yet; then full windows over the other 29 steps.
    assert report.rounds == 1 + math.ceil(29 / window)
    assert report.accepted == report.proposed
    assert report.teacher_rows == 2 * 30
    assert report.acceptance == 1.0
    assert math.isnan(report.acceptance_by_step[-1])


def test_report_adds_up() -> None:
    labels = [0, 1, 2, 1, 0]
    report = _sampler(4).sample(labels, seed=3).report
    assert 0.2 < report.acceptance < 1
    assert report.rounds == max(report.rounds_by_sample)
    assert report.rounds > min(report.rounds_by_sample)  # samples move at their own pace
    assert report.teacher_rows == report.proposed + sum(report.rounds_by_sample)
    assert report.parallel_efficiency == 30 * 5 / sum(report.rounds_by_sample)
    assert sum(report.accepted_by_step) == report.accepted
    # Each rejected draft ends its round.
    rejected = sum(report.examined_by_step) - report.accepted
    assert rejected <= sum(report.rounds_by_sample)
    assert set(report.seconds_by_phase) == {"draft", "teacher", "verify", "bookkeeping"}
    assert 0 < sum(report.seconds_by_phase.values()) <= report.seconds
    assert report.tv_bound == 0.0
    record = json.loads(report.to_json())
    assert record["acceptance_by_step"][-1] is None
    assert record["seeds"] == [3, 4, 5, 6, 7]


def test_seeds_make_the_draws_and_are_64_bits_however_they_are_given() -> None:
    sampler = _sampler(4)
    first = sampler.sample([1, 1], seed=2**64 - 3).samples
    assert (first[0] - first[1]).abs().max() > 1e-3
    for same in (-3, [2**64 - 3], [-3], torch.tensor([-3]), np.array([-3]), np.int64(-3)):
        samples = sampler.sample([1], seed=same).samples
        torch.testing.assert_close(samples, first[:1], rtol=1e-4, atol=1e-4)
    again = sampler.sample([1], seed=-3).samples
    torch.testing.assert_close(again, samples, rtol=0, atol=0)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_teachers_of_other_precision_serve(dtype: torch.dtype) -> None:
    def teacher(x, t, y):
        return TeacherOutput(TEACHER(x, t, y).eps.to(dtype))

    samples = SpeculativeSampler(teacher, POOR, SCHEDULE, 4).sample([0, 1], shape=(4,)).samples
    assert samples.dtype == torch.float32
    assert samples.isfinite().all()


@pytest.mark.parametrize("kind", ["speculative", "sequential"])
def test_observers_see_every_state_after_every_round(kind: str) -> None:
    sampler = _sampler(4) if kind == "speculative" else SequentialSampler(TEACHER, SCHEDULE)
    seen, progress, labels = [], [], [0, 1, 0]
    observe = lambda made, x: seen.append((made, x.clone()))  # noqa: E731
    result = sampler.sample(labels, observer=observe, progress=progress.append)
    assert sum(progress) == 3 * 30
    assert len(seen) == result.report.rounds
    made = [count for count, _ in seen]
    assert made == sorted(set(made))  # grows with every round
    assert made[-1] == len(SCHEDULE)
    assert all(x.shape == (3, 4) for _, x in seen)
    torch.testing.assert_close(seen[-1][1], result.samples, rtol=0, atol=0)
    # Each state moves until its sample is done, in the round that the report says, and then stays.
    for sample, rounds in enumerate(result.report.rounds_by_sample):
        path = torch.stack([x[sample] for _, x in seen])
        moves = (path[1:] != path[:-1]).any(1)
        assert moves[: rounds - 1].all()
        assert not moves[rounds - 1 :].any()
    torch.testing.assert_close(sampler.sample(labels).samples, result.samples, rtol=0, atol=0)


def test_shape_of_teachers_without_one() -> None:
    def teacher(x, t, y):
        return TeacherOutput(torch.tanh(x))

    sampler = SequentialSampler(teacher, Schedule.ddpm(4))
    assert sampler.sample([3], shape=(2, 5)).samples.shape == (1, 2, 5)
    with pytest.raises(ValueError, match="a teacher without sample_shape"):
        sampler.sample([3])


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        ({"labels": [0, 3]}, r"labels must be in 0\.\.1 or 2 \(the null class\), got 3"),
        ({"labels": None}, "labels must be a non-empty vector of integers, got None"),
        ({"labels": [True, 1]}, r"labels must be a non-empty vector of integers, got \[True, 1\]"),
        ({"labels": np.array([True])}, "labels must be a non-empty vector of integers, got bool"),
        ({"labels": [2**63]}, f"labels must be below {2**63}, got {2**63}"),
        ({"labels": np.array([2**63], np.uint64)}, f"labels must be below {2**63}, got {2**63}"),
        ({"labels": [0], "seed": True}, "seed must be a non-empty vector of integers, got bool"),
        ({"labels": [-(2**70)]}, r"labels: expected values in -2\*\*63\.\."),
        ({"labels": [0], "seed": 2**64}, r"seeds: expected values in -2\*\*63\.\.2\*\*64-1"),
        ({"labels": []}, "labels must be a non-empty vector of integers"),
        ({"labels": [0.5]}, "labels must be a non-empty vector of integers, got float32"),
        ({"labels": [[0]]}, r"labels must be a non-empty vector of integers, got int64 of shape"),
        ({"labels": [0, 1], "seed": [1]}, r"seed must be one integer or one a label \(2\), got 1"),
        ({"labels": [0], "shape": (0,)}, r"shape must be the positive sizes of one sample"),
        ({"labels": [0], "shape": (True, 4)}, r"shape must be the .* got \(True, 4\)"),
        ({"labels": [0], "shape": (2**40, 2**40)}, "shape must be .* of at most 17179869184 val"),
    ],
)
def test_bad_requests_are_refused(request_: dict, message: str) -> None:
    for sampler in (_sampler(2), SequentialSampler(TEACHER, SCHEDULE)):
        with pytest.raises(ValueError, match=message):
            sampler.sample(**request_)


def test_guidance_needs_a_null_label() -> None:
    with pytest.raises(ValueError, match="teacher must have a null_label to be guided"):
        SequentialSampler(lambda x, t, y: TeacherOutput(x), SCHEDULE, cfg_scale=2.0)
    wrapped = torch.nn.DataParallel(torch.nn.Linear(2, 2))
    with pytest.raises(ValueError, match=r"got DataParallel; pass its \.module$"):
        SequentialSampler(wrapped, SCHEDULE, cfg_scale=2.0)


@pytest.mark.parametrize("window", [1, 4])
def test_samples_that_overflow_are_named(window: int) -> None:
    """Of finite outputs, in the last transition."""

    class Huge(MixtureTeacher):
        def __call__(self, x: Tensor, t: Tensor, y: Tensor) -> TeacherOutput:
            eps = super().__call__(x, t, y).eps
            return TeacherOutput(torch.where((t == 0)[:, None] & (y == 1)[:, None], 3e38, eps))

    schedule = Schedule.ddpm(6)
    schedule = dataclasses.replace(schedule, b=np.where(schedule.timesteps == 0, 9.0, schedule.b))
    message = r"^sample \[1, 2\] left the range of float32"
    made = SpeculativeSampler(Huge(4), "frozen", schedule, window)
    plain = SequentialSampler(Huge(4), schedule)
    for sampler in (made, plain, graphed(made)):
        with pytest.raises(FloatingPointError, match=message):
            sampler.sample([0, 1, 1])


def test_non_finite_teacher_is_named() -> None:
    """A wrong output of another kind is in tests/rounds/test_round.py."""

    def teacher(x, t, y):
        eps = TEACHER(x, t, y).eps
        eps[(y == 1) & (t <= SCHEDULE.timesteps[9])] = torch.nan
        return TeacherOutput(eps)

    speculative = SpeculativeSampler(teacher, CallableDrafter(TEACHER), SCHEDULE, 3)
    message = r"teacher returned a non-finite eps at step \[9.*\] for sample \[1\]"
    for sampler in (speculative, SequentialSampler(teacher, SCHEDULE)):
        with pytest.raises(FloatingPointError, match=message):
            sampler.sample([0, 1, 0], shape=(4,))


def test_a_response_measured_too_large_does_not_blow_up() -> None:
    # Random weights: from one discarded state to the next, eps changes by any amount.
    teacher = randomized(DiT(DiTConfig(8, 4, 1, 16, 1, 2, num_classes=3)))
    options = {"cfg_scale": 1.5, "sweeps": 1, "recycle": "response"}
    sampler = SpeculativeSampler(teacher, "frozen", Schedule.ddpm(24), 16, **options)
    samples, report = sampler.sample([0, 1], seed=0)
    assert torch.isfinite(samples).all()
    assert report.rounds > 1


def test_samples_can_be_changed_and_differentiated_through() -> None:
    for sampler in (_sampler(4), SequentialSampler(TEACHER, SCHEDULE)):
        samples = sampler.sample([0]).samples.clamp_(-1, 1).requires_grad_()
        samples.square().sum().backward()
