"""The decide phase of block verification against 50 digits, in the kernel and in its twin.

Windows of one dimension and two drafts with sigma = 1, so that the first draft sets the share
``p_1``, the second transition the ``delta``, and the second draft is one that cannot stand: what is
left to decide is whether one draft stands (``u < h_1``), and if so where the state is put (``s``).
"""

import functools
import math
from typing import Any, NamedTuple

import mpmath
import pytest
import torch
from mpmath import mpf

from free import ops, reference
from tests.windows import Window, by_numbers, random_window

DELTAS = [1e-8, 1e-6, 1e-4, 9.9e-4, 1.01e-3, 0.03, 0.4, 1.0, 2.5, 8.0, 20.0, 50.0]
LOG_SHARES = [-1e-7, -1e-5, -1e-3, -0.05, -0.7, -3.0, -10.0, -23.0, -46.0, -69.07]
NOISE = [-6.5, -2.0, 0.0, 1.0, 5.0]
NEVER = 1 - 2.0**-24

BOTH = pytest.mark.parametrize("verify", [ops.verify_window, reference.verify_window])


def phibar(x: mpf) -> mpf:
    return mpmath.erfc(x / mpmath.sqrt(2)) / 2


class Exact(NamedTuple):
    """One pair of transitions, as float32 has it, and what is to be decided of it."""

    z: float
    delta: float
    log_p: mpf
    h: mpf

    def tail(self, s: mpf) -> mpf:
        return mpmath.exp(self.log_p) * phibar(s - self.delta) - phibar(s)

    def quantile(self, noise: float) -> mpf:
        low = mpf(self.delta) / 2 - self.log_p / self.delta
        high = max(low, mpf(self.delta)) + 12
        goal = phibar(-mpf(noise)) * self.tail(low)
        for _ in range(50):
            middle = (low + high) / 2
            low, high = (middle, high) if self.tail(middle) > goal else (low, middle)
        return low


def exactly(delta: float, log_share: float) -> Exact:
    """The first means are 1 apart: ``log p_1 = z - 1 / 2``."""
    with mpmath.workdps(50):
        z, delta = (torch.tensor([log_share + 0.5, delta]).double()).tolist()
        made = Exact(z, delta, mpf(z) - mpf(1) / 2, mpf(0))
        mass = made.tail(mpf(delta) / 2 - made.log_p / delta)
        return made._replace(h=mass / (mass - mpmath.expm1(made.log_p)))


CASES = [exactly(delta, share) for delta in DELTAS for share in LOG_SHARES]


def windows(cases: list[tuple[Exact, float, float]], sign: float = 1.0) -> Window:
    """Of each case with a uniform for ``h_1`` and a fresh noise; ``sign`` is the direction of e."""
    z, delta, u, noise = torch.tensor([(c.z, c.delta, u, a) for c, u, a in cases]).T
    never = -1e4 * torch.maximum(1 / delta, torch.ones(()))
    zero, one = torch.zeros_like(z), torch.ones_like(z)
    return Window(
        sign * torch.stack([zero, z, never], 1)[..., None],
        torch.zeros(len(z), 2, 1),
        sign * torch.stack([one, delta, zero], 1)[..., None],
        torch.ones(len(z), 3),
        torch.full((len(z),), 3, dtype=torch.int32),
        torch.stack([u, NEVER * one], 1),
        sign * noise[:, None],
    )


@BOTH
@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_probabilities_to_stop(verify: Any, sign: float) -> None:
    """A uniform 1e-4 below ``h`` keeps the draft, one 1e-4 above does not."""
    below, above = [], []
    for case in CASES:
        h = float(case.h)
        if h > 1e-36:  # else float32 has no uniform for it
            below.append((case, h * (1 - 1e-4), 0.0))
        if h * (1 + 1e-4) < NEVER:
            above.append((case, max(h * (1 + 1e-4), 1e-36), 0.0))
    assert len(below) > 60
    assert len(above) > 100
    assert (verify(*windows(below, sign), verifier="block")[2] == 1).all()
    assert (verify(*windows(above, sign), verifier="block")[2] == 0).all()


@functools.cache
def placed() -> tuple[list[tuple[Exact, float, float]], torch.Tensor]:
    """Cases where one draft stands, and where their states belong."""
    given = [(case, 0.0, a) for case in CASES if case.h > 1e-36 for a in NOISE]
    with mpmath.workdps(50):
        return given, torch.tensor([float(case.quantile(a)) for case, _, a in given])


@BOTH
@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_where_the_state_is_put(verify: Any, sign: float) -> None:
    given, expected = placed()
    state, _, accepted, _ = verify(*windows(given, sign), verifier="block")
    assert (accepted == 1).all()
    torch.testing.assert_close(sign * state[:, 0], expected, rtol=0, atol=1e-4)


@BOTH
def test_the_first_transition_has_the_whole_target_left(verify: Any) -> None:
    """By hand: p_1 = exp(-delta s), so u = .9 rejects; then lambda = 1 and c = delta / 2."""
    window = by_numbers([0.0, -1.0], [0.0], [2.0, 7.0], [1.0, 1.0], [0.9], 0.0)
    state, advance, accepted, ratio = verify(*window, verifier="block")
    assert (advance.item(), accepted.item(), ratio.item()) == (1, 0, -4.0)
    with mpmath.workdps(50):
        assert state.item() == pytest.approx(float(Exact(0, 2.0, mpf(0), mpf(0)).quantile(0)))


@BOTH
def test_later_drafts_rescue_earlier_ones(verify: Any) -> None:
    """What reflection rejects at the first draft stands if the block is likely as a whole."""
    window = by_numbers([0.0, -1.0, 9.0], [0.0] * 2, [2.0, 2.0, 7.0], [1.0] * 3, [0.9] * 2, 0.0)
    assert verify(*window)[2].item() == 0
    state, _, accepted, _ = verify(*window, verifier="block")
    assert (state.item(), accepted.item()) == (7.0, 2)


@pytest.mark.parametrize("delta", [1e-7, 1e-3, 60.0, 200.0, 1e9])
def test_kernel_agrees_with_twin_at_the_edges(delta: float) -> None:
    window = random_window(50, 6, (16,), delta=delta, ragged=True)
    verified = ops.verify_window(*window, verifier="block")
    state, _, accepted, log_ratio = reference.verify_window(*window, verifier="block")
    assert torch.equal(verified.accepted, accepted)
    torch.testing.assert_close(verified.log_ratio, log_ratio, rtol=1e-5, atol=1e-5, equal_nan=True)
    torch.testing.assert_close(verified.state, state, rtol=1e-6, atol=1e-6)
    examined = torch.arange(5) < window.length[:, None] - 1
    assert torch.equal(log_ratio.isnan(), ~examined)


@BOTH
@pytest.mark.parametrize("gap", [2.0**-20, 1e-30])
def test_deterministic_drafts(verify: Any, gap: float) -> None:
    """With equal means they stand; else the state is the target's mean, and what follows falls."""
    window = random_window(20, 4, (6,), delta=0.0)
    window.sigma[:, 1] = 0
    window.uniforms[:] = NEVER
    assert (verify(*window, verifier="block")[2] == 3).all()
    window.target_means[:, 1, 2] = window.draft_means[:, 1, 2] + gap
    window.draft_means[:, 1, 2] = window.target_means[:, 1, 2] - 2.0**-20
    state, _, accepted, ratio = verify(*window, verifier="block")
    assert (accepted == 1).all()
    assert torch.equal(state, window.target_means[:, 1])
    assert (ratio[:, 1] == -math.inf).all()


@BOTH
def test_disjoint_laws_leave_the_target(verify: Any) -> None:
    """Beyond what float64 can tell apart: a draw from the target, with the fresh noise."""
    window = random_window(20, 3, (6,), delta=1e6)
    state, _, accepted, _ = verify(*window, verifier="block")
    assert (accepted == 0).all()
    expected = window.target_means[:, 0] + window.sigma[:, :1] * window.noise
    torch.testing.assert_close(state, expected, rtol=0, atol=0)
