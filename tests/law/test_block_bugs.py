"""What can be got wrong in block verification is found, by the tests that the right one passes."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from free import ops
from tests.law.block import Array, Block
from tests.law.transition import Verdict, judge
from tests.windows import random_window


class WholeTarget(Block):
    """The residual without the factor p_tau: of the whole target, not of the share left over."""

    def share(self, log_p: Array) -> Array:
        return np.zeros_like(log_p)


class StopsAtFirstFailure(Block):
    """The drafts before the first failure stand, not those before the last success."""

    def choose(self, stands: Array, real: Array) -> Array:
        return (stands & real).cumprod(1).sum(1)


class OneUniform(Block):
    """All decisions of a window look at the same uniform."""

    def uniforms(self, u: Array) -> Array:
        return np.repeat(u[:, :1], u.shape[1], axis=1)


class ReusesDraft(Block):
    """The draft's own component along e is the uniform of the residual."""

    def noise(self, fresh: Array, own: Array) -> Array:
        return own


BUGS = [WholeTarget, StopsAtFirstFailure, OneUniform, ReusesDraft]


def judged(rule: Block, delta: float, chains: int = 20_000) -> Verdict:
    return judge(rule, 2, delta, verifier="block", transitions=8, window=8, chains=chains)


@pytest.mark.parametrize("delta", [0.3, 1.0, 2.5])
def test_harness_is_sound(delta: float) -> None:
    verdict = judged(Block(), delta)
    assert verdict.passes, verdict


@pytest.mark.parametrize("ragged", [False, True])
@pytest.mark.parametrize("delta", [0.1, 1.0, 5.0])
@pytest.mark.parametrize("dim", [1, 5])
def test_harness_is_the_kernel(dim: int, delta: float, ragged: bool) -> None:
    window = random_window(500, 7, (dim,), delta=delta, ragged=ragged)
    state, _, accepted, _ = Block()(*window)
    verified = ops.verify_window(*window, verifier="block")
    assert torch.equal(verified.accepted, accepted)
    torch.testing.assert_close(verified.state, state, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("bug", BUGS)
def test_bug_fails_the_law_itself(bug: type[Block]) -> None:
    """Not only the number of drafts that stand."""
    verdict = judged(bug(), 1.0, chains=40_000)
    assert verdict.p < 1e-6, verdict
