"""What a draft may depend on, without statistics: change a noise, and see what changes with it.

The rule is that of :func:`free.rounds.draft.draft_window`. It is tried on single windows as they
occur in runs, and on whole runs, where a noise could also reach an earlier transition by way of
what was recycled or of the response.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor

import free.rounds.round
from free import SpeculativeSampler
from free.ops import WindowNoise
from free.rounds import noise as random
from free.rounds.draft import draft_window
from free.rounds.state import Draft, Samples
from tests.law.cells import Cell
from tests.law.test_drafting_bugs import (
    learns_from_all,
    learns_from_behind,
    of_the_neighbour,
    sees_own_noise,
    shifted,
)

LABELS = torch.arange(200) % 3
SEEDS = torch.arange(200) + 77
WINDOW = 6


class Round(NamedTuple):
    """How ``draft_window`` was called in a round, and what it returned."""

    drafter: Any
    samples: Samples
    noise: Tensor
    drafted: Tensor
    options: dict[str, Any]
    draft: Draft

    def again(self, noise: Tensor | None = None, **options: Any) -> Draft:
        noise = self.noise if noise is None else noise
        options = {**self.options, **options}
        return draft_window(self.drafter, self.samples, noise, self.drafted, **options)

    def real(self) -> Tensor:
        """Which entries of the means are of drafts, [B, W - 1]."""
        return torch.arange(self.draft.means.shape[1]) < self.drafted[:, None]


def _sampler(
    sweeps: int | None, recycle: bool | str, drafter: str, case: str = "nearly linear"
) -> SpeculativeSampler:
    return Cell(WINDOW, sweeps, recycle, drafter=drafter, case=case).sampler()


def _rounds(sampler: SpeculativeSampler) -> list[Round]:
    """The rounds of a run, observed; what is monkeypatched in ``free.rounds`` stays so."""
    rounds: list[Round] = []
    draft = free.rounds.round.draft_window

    def kept(drafter: Any, samples: Samples, noise: Tensor, drafted: Tensor, **options: Any) -> Any:
        made = draft(drafter, samples, noise, drafted, **options)
        rounds.append(Round(drafter, samples, noise, drafted, options, made))
        return made

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(free.rounds.round, "draft_window", kept)
        sampler.sample(LABELS, SEEDS)
    return rounds


ways = pytest.mark.parametrize(
    ("sweeps", "recycle", "drafter"),
    [
        (None, False, "opaque"),
        (None, "response", "anchored"),
        (None, "drafter", "image"),
        (None, "reuse", "opaque"),
        (1, True, "opaque"),
        (1, "response", "image"),
        (0, "response", "opaque"),
        (0, False, "opaque"),
        (1, "reuse", "anchored"),
        (1, False, "anchored"),
        (2, "response", "opaque"),
        (2, "drafter", "opaque"),
        (2, "reuse", "image"),
        (3, "response", "anchored"),
        (3, "drafter", "anchored"),
        (3, False, "image"),
    ],
)


@ways
def test_a_mean_never_sees_its_own_or_later_noise(sweeps, recycle, drafter) -> None:
    reached = 0.0
    for made in _rounds(_sampler(sweeps, recycle, drafter))[:5]:
        for j in range(made.draft.means.shape[1]):
            noise = made.noise.clone()
            noise[:, j:] = torch.randn(noise[:, j:].shape)
            change = (made.again(noise).means - made.draft.means).abs()
            change[~made.real()] = 0.0
            assert change[:, : j + 1].max() == 0.0
            reached += float(change[:, j + 1 :].sum())
    assert reached > 0


def _seen_too_early(sampler: SpeculativeSampler, patch: pytest.MonkeyPatch) -> float:
    """Largest change of a mean when its own noise or uniform is changed throughout a run.

    Until a sample has made transition ``T``, its run must be as before: the same rounds, and the
    same means up to that of ``T``.
    """
    before, changes = _rounds(sampler), [0.0]
    for T in (2, 5, 9):
        for normals in (True, False):
            with patch.context() as changed:
                changed.setattr(free.rounds.round, "window_numbers", _other_window(T, normals))
                after = _rounds(sampler)
            for one, other in zip(before, after, strict=False):
                # Samples that are at or before T still; in both runs in the same order.
                here, there = one.samples.k <= T, other.samples.k <= T
                k = one.samples.k[here]
                if not torch.equal(one.samples.number[here], other.samples.number[there]):
                    return torch.inf
                if not torch.equal(k, other.samples.k[there]):
                    return torch.inf
                means = min(one.draft.means.shape[1], other.draft.means.shape[1])
                upto = k[:, None] + torch.arange(means) <= T
                upto &= one.real()[here, :means] & other.real()[there, :means]
                difference = one.draft.means[here, :means] - other.draft.means[there, :means]
                changes.append(float(difference[upto].abs().max()) if upto.any() else 0.0)
    return max(changes)


def _other_window(T: int, normals: bool) -> Callable[..., WindowNoise]:
    """Other normals, or other uniforms, for transition ``T`` of a window."""

    def other(like: Tensor, seeds: Tensor, k: Tensor, rounds: Any, *rest: Any, **sizes: Any) -> Any:
        drawn = random.window_numbers(like, seeds, k, rounds, *rest, **sizes)
        others = random.window_numbers(like, seeds + 10**6, k, rounds, *rest, **sizes)
        W = drawn.uniforms.shape[1] + 1
        here = k[:, None] + torch.arange(W - 1) == T
        if not normals:
            return drawn._replace(uniforms=torch.where(here, others.uniforms, drawn.uniforms))
        ends = (k + drawn.length - 1 == T)[:, None]
        return drawn._replace(
            noise=torch.where(here[..., None], others.noise, drawn.noise),
            last=torch.where(ends, others.last, drawn.last),
        )

    return other


@ways
def test_a_run_sees_no_noise_early(sweeps, recycle, drafter, monkeypatch) -> None:
    """Whatever way it could go: recycled rows, the response, batches, decisions.

    A noise changes what other samples share a batch, and with it rounding.
    """
    sampler = _sampler(sweeps, recycle, drafter, "nonlinear")
    assert _seen_too_early(sampler, monkeypatch) < 1e-4


@pytest.mark.parametrize(
    ("name", "bug", "recycle"),
    [
        ("draft_window", sees_own_noise, "reuse"),
        ("recycle", shifted(1), "reuse"),
        ("recycle", shifted(1), "response"),
        ("updated_response", learns_from_all, "response"),
        ("updated_response", learns_from_behind, "response"),
        ("updated_response", learns_from_behind, True),
    ],
)
def test_what_is_seen_early_is_found(name, bug, recycle, monkeypatch) -> None:
    """The bugs of :mod:`tests.law.test_drafting_bugs`, and a response that learns too much."""
    monkeypatch.setattr(free.rounds.round, name, bug)
    assert _seen_too_early(_sampler(2, recycle, "unchecked", "nonlinear"), monkeypatch) > 1e-2


@pytest.mark.parametrize(
    ("recycle", "drafter"), [(False, "unchecked"), ("response", "anchored"), ("drafter", "image")]
)
def test_sweeps_reproduce_autoregression(recycle: bool | str, drafter: str) -> None:
    """``W - 1`` sweeps, in every window of a run, and in whole runs: rounding apart."""
    for made in _rounds(_sampler(None, recycle, drafter)):
        swept, drafted = made.again(sweeps=WINDOW - 1), made.real()
        torch.testing.assert_close(
            swept.means[drafted], made.draft.means[drafted], rtol=1e-3, atol=1e-3
        )
    in_turn = _sampler(None, recycle, drafter).sample(LABELS, SEEDS)
    swept_run = _sampler(WINDOW - 1, recycle, drafter).sample(LABELS, SEEDS)
    torch.testing.assert_close(swept_run.samples, in_turn.samples, rtol=1e-2, atol=1e-2)


def _far_from_alone(recycle: bool | str, drafter: str) -> float:
    """Largest distance of a sample drawn alone from the same one drawn in a batch."""
    sampler = _sampler(2, recycle, drafter)
    batch = sampler.sample(LABELS, SEEDS).samples
    alone = [sampler.sample(LABELS[i : i + 1], SEEDS[i : i + 1]).samples for i in range(20)]
    return float((torch.cat(alone) - batch[:20]).abs().max())


def test_rows_of_the_neighbour_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """The law is right with them; a sample on its own is not the one of the batch."""
    for recycle, drafter in ((False, "opaque"), ("response", "image"), ("reuse", "unchecked")):
        assert _far_from_alone(recycle, drafter) < 1e-3
    monkeypatch.setattr(free.rounds.round, "recycle", of_the_neighbour)
    assert _far_from_alone("reuse", "unchecked") > 0.1
