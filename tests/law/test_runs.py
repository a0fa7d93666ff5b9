"""Whole runs: speculative samples have the sequential sampler's law.

The teacher is the exact eps of a Gaussian mixture, strongly nonlinear between its modes; the
drafter is a teacher of displaced, wider modes, wrong enough to be rejected often. 20,000
speculative samples are held against 20,000 sequential ones. Each planted bug must be found.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor

import free.rounds.round
from free import (
    DiT,
    DiTConfig,
    DrafterNet,
    FeatureDrafter,
    FrozenDrafter,
    Schedule,
    SequentialSampler,
    SpeculativeSampler,
)
from free.ops import VERIFIERS, Verified, verify_window
from tests.law.stats import energy_test, ks_two_sample
from tests.networks import CallableDrafter, MixtureTeacher, randomized

SAMPLES = 20_000
SCHEDULE = Schedule.ddpm(12)
TEACHER = MixtureTeacher(2)
POOR = CallableDrafter(MixtureTeacher(2, shift=0.25, spread=0.3), in_turn=True)
LABELS = torch.arange(SAMPLES) % 3
#: A correct sampler falls below by chance once in 10,000 runs of a test.
LEVEL = 1e-4


@functools.cache
def _sequential(cfg_scale: float) -> Tensor:
    sampler = SequentialSampler(TEACHER, SCHEDULE, cfg_scale)
    return sampler.sample(LABELS, seed=10**9).samples


def _speculative(
    window: int, cfg_scale: float = 1.0, verifier: str = "reflection"
) -> tuple[Tensor, free.Report]:
    sampler = SpeculativeSampler(TEACHER, POOR, SCHEDULE, window, cfg_scale, verifier=verifier)
    return sampler.sample(LABELS, seed=0)


def smallest_p(samples: Tensor, reference: Tensor) -> float:
    """Smallest p of KS in each coordinate and two diagonals, and of the energy distance,
    corrected for their number (Bonferroni).
    """
    directions = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.6, 0.8], [0.8, -0.6]])
    tests = [ks_two_sample(samples @ v, reference @ v) for v in directions]
    tests.append(energy_test(samples, reference))
    return min(1.0, len(tests) * min(tests))


@pytest.mark.parametrize("keep", ["image", "eps"])
@pytest.mark.parametrize("verifier", VERIFIERS)
def test_law_with_frozen_drafters(verifier: str, keep: str) -> None:
    drafter = FrozenDrafter(keep)
    sampler = SpeculativeSampler(TEACHER, drafter, SCHEDULE, window=4, verifier=verifier)
    samples, report = sampler.sample(LABELS, seed=0)
    assert 0.03 < report.accepted / sum(report.examined_by_step) < 0.95
    assert smallest_p(samples, _sequential(1.0)) > LEVEL


@pytest.mark.parametrize("window", [1, 2, 4, 8])
@pytest.mark.parametrize("cfg_scale", [1.0, 1.5])
@pytest.mark.parametrize("verifier", VERIFIERS)
def test_law_of_whole_runs(verifier: str, window: int, cfg_scale: float) -> None:
    samples, report = _speculative(window, cfg_scale, verifier)
    if window > 1:
        assert 0.3 < report.accepted / sum(report.examined_by_step) < 0.95  # a hard case
    assert smallest_p(samples, _sequential(cfg_scale)) > LEVEL


@pytest.mark.parametrize("verifier", VERIFIERS)
def test_alone_is_as_in_a_batch(verifier: str) -> None:
    """So the law of single requests is the one tested above."""
    batch, _ = _speculative(4, verifier=verifier)
    sampler = SpeculativeSampler(TEACHER, POOR, SCHEDULE, 4, verifier=verifier)
    alone = torch.cat([sampler.sample([i % 3], i).samples for i in range(100)])
    torch.testing.assert_close(alone, batch[:100], rtol=1e-4, atol=1e-4)


def test_sequential_law_is_the_mixture() -> None:
    """The reference itself: with many steps it is the data's law, within its modes."""
    samples = SequentialSampler(TEACHER, Schedule.ddpm(250)).sample([0] * 3000, seed=5).samples
    noise = torch.randn(3000, 2, generator=torch.Generator().manual_seed(0))
    data = TEACHER.modes[torch.arange(3000) % 3] + TEACHER.spread * noise
    for v in torch.eye(2):
        distance = ((samples @ v).sort().values - (data @ v).sort().values).abs().mean()
        assert distance < 0.05  # Wasserstein; the data has a standard deviation of about 1


@pytest.mark.parametrize("verifier", VERIFIERS)
def test_law_with_the_feature_drafter_and_guidance(verifier: str) -> None:
    """The networks that are shipped, small and with random weights: features, carries, two rows
    a state.
    """
    config = DiTConfig(4, 2, 1, 16, 1, 2, num_classes=2, learn_sigma=False)
    teacher = randomized(DiT(config))
    network = randomized(DrafterNet(config), seed=1)
    teacher.final_layer.linear.weight.mul_(0.1)
    network.final_layer.linear.weight.mul_(0.01)
    drafter = FeatureDrafter(network, teacher)
    schedule = Schedule.ddpm(30)
    labels = torch.arange(2000) % 2
    plain = SequentialSampler(teacher, schedule, cfg_scale=1.5).sample(labels, 10**6).samples
    sampler = SpeculativeSampler(teacher, drafter, schedule, 4, cfg_scale=1.5, verifier=verifier)
    fast, report = sampler.sample(labels, 0)
    assert 0.05 < report.accepted / sum(report.examined_by_step) < 0.95
    directions = torch.randn(16, 6, generator=torch.Generator().manual_seed(0))
    pairs = zip((fast.flatten(1) @ directions).T, (plain.flatten(1) @ directions).T, strict=True)
    tests = [ks_two_sample(x, y) for x, y in pairs]
    tests.append(energy_test(fast.flatten(1), plain.flatten(1)))
    assert len(tests) * min(tests) > LEVEL


class Window(NamedTuple):
    """The arguments of ``verify_window``, as the sampler passes them."""

    states: Tensor
    draft_means: Tensor
    target_means: Tensor
    sigma: Tensor
    length: Tensor
    uniforms: Tensor
    noise: Tensor
    verifier: str

    def last_made(self, column: Tensor, verified: Verified) -> Tensor:
        """Entries [B, ...] of ``column [B, >= W - 1, ...]`` at the last transition made; where
        that is the target's own (no draft), those of another transition.
        """
        at = (verified.advance.long() - 1).clamp(max=column.shape[1] - 1)
        return column[torch.arange(len(at)), at]

    def repaired(self, verified: Verified, state: Tensor) -> Verified:
        """``verified`` with ``state [B, ...]`` where a draft was rejected."""
        rejected = (verified.advance < self.length)[:, None]
        return verified._replace(state=torch.where(rejected, state, verified.state))


def _always_accept(w: Window) -> Verified:
    own = torch.cat([w.draft_means, w.target_means[:, -1:]], dim=1)
    keep = torch.arange(own.shape[1]) < w.length[:, None] - 1
    return verify_window(
        *w._replace(target_means=torch.where(keep[..., None], own, w.target_means))
    )


def _no_reflection(w: Window) -> Verified:
    """A rejected draft becomes the target's mean plus its own, unmirrored noise."""
    out = verify_window(*w)
    noise = w.last_made(w.states[:, 1:] - w.draft_means, out)
    return w.repaired(out, w.last_made(w.target_means, out) + noise)


def _redraw(w: Window) -> Verified:
    """A rejected draft becomes an independent draw from the target."""
    out = verify_window(*w)
    noise = w.last_made(w.sigma, out)[:, None] * w.noise
    return w.repaired(out, w.last_made(w.target_means, out) + noise)


def _wrong_sign(w: Window) -> Verified:
    """The inner product in the ratio has the wrong sign: decisions see the mirrored noise."""
    mirrored = torch.cat([w.states[:, :1], 2 * w.draft_means - w.states[:, 1:]], dim=1)
    out = verify_window(*w._replace(states=mirrored))
    shift = w.last_made(w.draft_means - w.target_means[:, :-1], out)
    e = shift / shift.norm(dim=1, keepdim=True)
    noise = w.last_made(w.states[:, 1:] - w.draft_means, out)
    reflected = noise - 2 * (noise * e).sum(1, keepdim=True) * e
    return w.repaired(out, w.last_made(w.target_means, out) + reflected)


def _means_for_sums(w: Window) -> Verified:
    """Averages over the dimensions in place of sums: every log-ratio is divided by D."""
    softened = (1 - (1 - w.uniforms) ** w.states.shape[2]).clamp(max=1 - 2**-24)
    return verify_window(*w._replace(uniforms=softened))


def _noise_reused(w: Window) -> Verified:
    """The transition from the target reuses the noise of the window's last draft."""
    z = (w.states[:, 1:] - w.draft_means) / w.sigma[:, :-1, None]
    last = (w.length.long() - 2).clamp(min=0)
    reused = torch.where(w.length[:, None] > 1, z[torch.arange(len(z)), last], w.noise)
    return verify_window(*w._replace(noise=reused))


def _off_by_one(w: Window) -> Verified:
    """Drafts are judged by the target's mean of the row before theirs."""
    before = torch.cat([w.target_means[:, :1], w.target_means[:, :-1]], dim=1)
    drafted = torch.arange(before.shape[1]) < w.length[:, None] - 1
    means = torch.where(drafted[..., None], before, w.target_means)
    return verify_window(*w._replace(target_means=means))


BUGS: list[Callable[[Window], Verified]] = [
    _always_accept,
    _no_reflection,
    _redraw,
    _wrong_sign,
    _means_for_sums,
    _noise_reused,
    _off_by_one,
]


@pytest.mark.parametrize("bug", BUGS)
def test_planted_bugs_are_found(
    bug: Callable[[Window], Verified], monkeypatch: pytest.MonkeyPatch
) -> None:
    def planted(*arguments: Any) -> Verified:
        window = Window(*arguments)
        # The first round has one row, nothing drafted, and so nothing to get wrong.
        return bug(window) if window.draft_means.shape[1] else verify_window(*arguments)

    monkeypatch.setattr(free.rounds.round, "verify_window", planted)
    samples, _ = _speculative(4)
    assert smallest_p(samples, _sequential(1.0)) < LEVEL / 100
