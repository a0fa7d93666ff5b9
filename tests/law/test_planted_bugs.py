"""The law tests have teeth: each planted bug fails them, and the harness of the bugs does not."""

from __future__ import annotations

from typing import NamedTuple

import pytest
import torch
from torch import Tensor

from free import reference
from tests.law.transition import judge


class Draft(NamedTuple):
    """One drafted transition (W = 2) of every chain, as a verifier with a bug sees it."""

    x_hat: Tensor
    m_hat: Tensor
    m: Tensor
    sigma: Tensor
    u: Tensor
    noise: Tensor

    @property
    def z(self) -> Tensor:
        return (self.x_hat - self.m_hat) / self.sigma

    @property
    def shift(self) -> Tensor:
        return (self.m_hat - self.m) / self.sigma


class Correct:
    """Reflection in three methods, one of which each bug replaces."""

    def log_ratio(self, d: Draft) -> Tensor:
        return -(d.z * d.shift).sum(1) - d.shift.square().sum(1) / 2

    def repair(self, d: Draft) -> Tensor:
        e = d.shift / d.shift.norm(dim=1, keepdim=True)
        return d.m + d.sigma * (d.z - 2 * (d.z * e).sum(1, keepdim=True) * e)

    def fresh(self, d: Draft) -> Tensor:
        return d.noise

    def __call__(
        self,
        states: Tensor,
        draft_means: Tensor,
        target_means: Tensor,
        sigma: Tensor,
        length: Tensor,
        uniforms: Tensor,
        noise: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        d = Draft(
            states[:, 1], draft_means[:, 0], target_means[:, 0], sigma[:, :1], uniforms[:, 0], noise
        )
        drafted = length > 1
        ratio = self.log_ratio(d)
        accepted = (drafted & (torch.log1p(-d.u) <= ratio)).int()
        last = torch.where(drafted[:, None], target_means[:, 1], target_means[:, 0])
        state = torch.where(
            (drafted & (accepted == 0))[:, None], self.repair(d), last + d.sigma * self.fresh(d)
        )
        return state, accepted + 1, accepted, ratio[:, None]


class AlwaysAccepts(Correct):
    def log_ratio(self, d: Draft) -> Tensor:
        return torch.zeros_like(d.u)


class DoesNotReflect(Correct):
    def repair(self, d: Draft) -> Tensor:
        return d.m + d.sigma * d.z


class DrawsAfresh(Correct):
    def repair(self, d: Draft) -> Tensor:
        return d.m + d.sigma * d.noise


class WrongSign(Correct):
    def log_ratio(self, d: Draft) -> Tensor:
        return (d.z * d.shift).sum(1) - d.shift.square().sum(1) / 2


class Means(Correct):
    def log_ratio(self, d: Draft) -> Tensor:
        return super().log_ratio(d) / d.z.shape[1]


class ReusesDraftNoise(Correct):
    def fresh(self, d: Draft) -> Tensor:
        return d.z


@pytest.mark.parametrize("dim", [2, 16])
@pytest.mark.parametrize("delta", [0.1, 1.0])
def test_harness_is_sound(dim: int, delta: float) -> None:
    verdict = judge(Correct(), dim, delta)
    assert verdict.passes, verdict
    assert verdict == pytest.approx(judge(reference.verify_window, dim, delta), abs=0.05)


@pytest.mark.parametrize(
    "bug", [AlwaysAccepts, DoesNotReflect, DrawsAfresh, WrongSign, Means, ReusesDraftNoise]
)
@pytest.mark.parametrize("dim", [2, 16])
def test_bug_is_found(bug: type[Correct], dim: int) -> None:
    verdict = judge(bug(), dim, 1.0)
    assert not verdict.passes, verdict


@pytest.mark.parametrize("bug", [AlwaysAccepts, DoesNotReflect, DrawsAfresh, WrongSign])
def test_bug_fails_the_law_itself(bug: type[Correct]) -> None:
    """Not only the rate of acceptance."""
    verdict = judge(bug(), 2, 1.0)
    assert verdict.p < 1e-6, verdict
