"""What a draft may depend on, without statistics: change a noise, and see what changes with it.

The rule is that of :func:`free.rounds.draft.draft_window`. It is tried on single windows as they occur
in runs, and on whole runs, where a noise could also reach an earlier transition by way of what was
recycled or of the choice between sources.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor

import free.rounds.round
from free import FrozenDrafter, SpeculativeSampler
from free.drafters import Drafter
from free.reference.draft import SOURCES
from free.rounds import noise as random
from free.rounds.draft import draft_window
from free.rounds.draft_source import with_round
from free.rounds.report import Recorder
from free.rounds.state import Draft
from tests.law.test_drafting import CASES, SCHEDULE
from tests.law.test_drafting_bugs import (
    Unchecked,
    _behind,
    _of_the_neighbour,
    _sees_own_noise,
    _shifted,
)
from tests.networks import AnchoredDrafter, CallableDrafter, MixtureTeacher

LABELS = torch.arange(200) % 3
SEEDS = torch.arange(200) + 77
MAKE: dict[str, Callable[[MixtureTeacher], Drafter]] = {
    "opaque": CallableDrafter,
    "anchored": AnchoredDrafter,
    "frozen": lambda _: FrozenDrafter(),
    "unchecked": Unchecked,
}
DRAFTERS = ["opaque", "anchored", "frozen"]
WINDOW = 6


class Round(NamedTuple):
    """Of one round: which samples, at which transitions, and how ``draft_window`` was called."""

    samples: Tensor
    k: Tensor
    length: Tensor
    arguments: dict[str, Any]
    draft: Draft

    def again(self, **changed: Any) -> Draft:
        return draft_window(**{**self.arguments, **changed})

    def drafted(self) -> Tensor:
        """Which entries of the means are of drafts, [B, W - 1]."""
        return torch.arange(self.draft.means.shape[1]) < self.length[:, None] - 1


def _sampler(
    sweeps: int | None, recycle: bool | str, drafter: str, case: str = "nearly linear"
) -> SpeculativeSampler:
    teacher, guess = CASES[case]
    return SpeculativeSampler(
        teacher, MAKE[drafter](guess), SCHEDULE, WINDOW, sweeps=sweeps, recycle=recycle
    )


def _rounds(sampler: SpeculativeSampler) -> list[Round]:
    """The rounds of a run, observed; what is monkeypatched in ``free.rounds`` stays so."""
    rounds: list[Round] = []
    calls: list[tuple[dict[str, Any], Draft]] = []
    draft, count = free.rounds.round.draft_window, Recorder.round

    def draft_and_keep(*arguments: Any) -> Draft:
        given = inspect.signature(draft_window).bind(*arguments).arguments
        calls.append((given, draft(*arguments)))
        return calls[-1][1]

    def count_and_keep(
        self: Recorder, samples: Tensor, k: Tensor, length: Tensor, *rest: Any
    ) -> None:
        if calls:  # the first transition is made without drafts
            rounds.append(Round(samples, k, length, *calls.pop()))
        count(self, samples, k, length, *rest)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(free.rounds.round, "draft_window", draft_and_keep)
        patch.setattr(Recorder, "round", count_and_keep)
        sampler.sample(LABELS, SEEDS)
    return rounds


every_way = pytest.mark.parametrize(
    ("sweeps", "recycle", "drafter"),
    [
        (sweeps, recycle, drafter)
        for sweeps in (None, 1, 2, 3)
        for recycle in (False, True, *SOURCES)
        for drafter in DRAFTERS
    ],
)


@every_way
def test_a_mean_never_sees_its_own_or_later_noise(
    sweeps: int | None, recycle: bool | str, drafter: str
) -> None:
    reached = 0.0
    for made in _rounds(_sampler(sweeps, recycle, drafter))[:5]:
        for j in range(made.draft.means.shape[1]):
            noise = made.arguments["noise"].clone()
            noise[:, j:] = torch.randn(noise[:, j:].shape)
            change = (made.again(noise=noise).means - made.draft.means).abs()
            change[~made.drafted()] = 0.0
            assert change[:, : j + 1].max() == 0.0
            reached += float(change[:, j + 1 :].sum())
    assert reached > 0


def _seen_too_early(sampler: SpeculativeSampler, patch: pytest.MonkeyPatch) -> float:
    """Largest change of a mean when its own noise or uniform is changed throughout a run.

    Until a sample has made transition ``T``, its run must be as before: the same rounds, and the
    same means up to that of ``T``.
    """
    before, changes = _rounds(sampler), [0.0]
    for T in (2, 4, 6, 9):
        for draw in ("normal", "uniform"):
            with patch.context() as changed:
                changed.setattr(
                    free.rounds.round, "normal", _with_other_numbers(random.normal, draw, T)
                )
                changed.setattr(
                    free.rounds.round,
                    "window_numbers",
                    _with_other_windows(random.window_numbers, draw, T),
                )
                after = _rounds(sampler)
            for one, other in zip(before, after, strict=False):
                # Samples that are at or before T still; in both runs in the same order.
                here, there = one.k <= T, other.k <= T
                if not torch.equal(one.samples[here], other.samples[there]):
                    return torch.inf
                if not torch.equal(one.k[here], other.k[there]):
                    return torch.inf
                means = min(one.draft.means.shape[1], other.draft.means.shape[1])
                upto = one.k[here, None] + torch.arange(means) <= T
                upto &= one.drafted()[here, :means] & other.drafted()[there, :means]
                difference = one.draft.means[here, :means] - other.draft.means[there, :means]
                changes.append(float(difference[upto].abs().max()) if upto.any() else 0.0)
    return max(changes)


def _with_other_numbers(normal: Callable[..., Tensor], draw: str, T: int) -> Callable[..., Tensor]:
    """Other numbers for transition ``T`` of every sample."""

    def other(seeds: Tensor, transition: Any, *rest: Any) -> Tensor:
        if draw != "normal":
            return normal(seeds, transition, *rest)
        return normal(seeds + 10**6 * (transition == T), transition, *rest)

    return other


def _with_other_windows(window: Callable[..., Any], draw: str, T: int) -> Callable[..., Any]:
    """The same for a window's normals or uniforms."""

    def other(seeds: Tensor, k: Tensor, rounds: Any, length: Tensor, W: int, shape: Any) -> Any:
        noise, uniforms, last = window(seeds, k, rounds, length, W, shape)
        others = window(seeds + 10**6, k, rounds, length, W, shape)
        here = k[:, None] + torch.arange(W - 1) == T
        if draw == "uniform":
            return noise, torch.where(here, others[1], uniforms), last
        ends = (k + length - 1 == T)[:, None]
        return (
            torch.where(here[..., None], others[0], noise),
            uniforms,
            torch.where(ends, others[2], last),
        )

    return other


@every_way
def test_a_run_sees_no_noise_early(
    sweeps: int | None, recycle: bool | str, drafter: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever way it could go: recycled rows, choices, the response, batches, decisions.

    A noise changes what other samples share a batch, and with it rounding.
    """
    sampler = _sampler(sweeps, recycle, drafter, "nonlinear")
    assert _seen_too_early(sampler, monkeypatch) < 1e-4


@pytest.mark.parametrize(
    ("name", "bug", "recycle"),
    [
        ("draft_window", _sees_own_noise, "reuse"),
        ("recycle", _shifted(1), "reuse"),
        ("recycle", _shifted(1), "control_variate"),
        ("with_round", lambda *given: with_round(*given[:-1], given[-2]), "response"),
        ("with_round", _behind, "response"),
        ("with_round", _behind, True),
    ],
)
def test_what_is_seen_early_is_found(
    name: str, bug: Any, recycle: bool | str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The bugs of :mod:`tests.law.test_drafting_bugs`, and evidence from all rows."""
    monkeypatch.setattr(free.rounds.round, name, bug)
    assert _seen_too_early(_sampler(2, recycle, "unchecked", "nonlinear"), monkeypatch) > 1e-2


@pytest.mark.parametrize("drafter", DRAFTERS)
@pytest.mark.parametrize("recycle", [False, True, *SOURCES])
def test_sweeps_reproduce_autoregression(recycle: bool | str, drafter: str) -> None:
    """``W - 1`` sweeps, in every window of a run, and in whole runs: rounding apart."""
    for made in _rounds(_sampler(None, recycle, drafter)):
        swept = made.again(sweeps=WINDOW - 1)
        drafted = made.drafted()
        torch.testing.assert_close(
            swept.means[drafted], made.draft.means[drafted], rtol=1e-3, atol=1e-3
        )
    in_turn = _sampler(None, recycle, drafter).sample(LABELS, SEEDS)
    swept_run = _sampler(WINDOW - 1, recycle, drafter).sample(LABELS, SEEDS)
    torch.testing.assert_close(swept_run.samples, in_turn.samples, rtol=1e-2, atol=1e-2)


@pytest.mark.parametrize("drafter", DRAFTERS)
@pytest.mark.parametrize("recycle", [False, True, *SOURCES])
def test_a_sample_does_not_depend_on_its_neighbours(recycle: bool | str, drafter: str) -> None:
    assert _far_from_alone(recycle, drafter) < 1e-3


def test_rows_of_the_neighbour_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """The law is right with them; a sample on its own is not the one of the batch."""
    monkeypatch.setattr(free.rounds.round, "recycle", _of_the_neighbour)
    assert _far_from_alone("reuse", "unchecked") > 0.1


def _far_from_alone(recycle: bool | str, drafter: str) -> float:
    """Largest distance of a sample drawn alone from the same one drawn in a batch."""
    sampler = _sampler(2, recycle, drafter)
    batch = sampler.sample(LABELS, SEEDS).samples
    alone = [sampler.sample(LABELS[i : i + 1], SEEDS[i : i + 1]).samples for i in range(40)]
    return float((torch.cat(alone) - batch[:40]).abs().max())
