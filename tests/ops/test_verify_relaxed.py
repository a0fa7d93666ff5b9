"""verify_window_relaxed: its twin, the formulas by hand, and the edges of its domain."""

import math
from typing import Any

import pytest
import torch

from free import reference
from free.ops import VerifiedRelaxed, verify_window, verify_window_relaxed
from free.reference.decide import RULES
from tests.windows import Window, by_numbers, random_window, spoil_beyond_length

EVERY = pytest.mark.parametrize("rule", RULES)


def by_keywords(op: Any) -> Any:
    """The op with its arguments in one order, which are keywords otherwise."""
    names = ("noise", "uncertainty", "spent", "rule", "strength", "budget")
    return lambda *given: op(*given[:6], **dict(zip(names, given[6:], strict=False)))


verify_relaxed = by_keywords(verify_window_relaxed)
BOTH = pytest.mark.parametrize(
    "verify", [verify_relaxed, by_keywords(reference.verify_window_relaxed)]
)


def extras(window: Window, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Uncertainties, a quarter of them negative, and what samples have spent."""
    g = torch.Generator().manual_seed(seed)
    batch, drafts = window.uniforms.shape
    uncertainty = torch.randn(batch, drafts, generator=g) + 0.67
    return uncertainty, 0.1 * torch.rand(batch, generator=g, dtype=torch.float64)


def assert_same(actual: VerifiedRelaxed, expected: Any) -> None:
    state, advance, accepted, log_ratio, bound, log_likelihood = expected
    assert torch.equal(actual.accepted, accepted)
    assert torch.equal(actual.advance, advance)
    torch.testing.assert_close(actual.log_ratio, log_ratio, rtol=1e-6, atol=1e-6, equal_nan=True)
    torch.testing.assert_close(actual.state, state, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(actual.bound, bound, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(actual.log_likelihood, log_likelihood, rtol=1e-9, atol=1e-12)


# --- agreement ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("batch", "width", "shape", "delta", "budget"),
    [
        (1, 1, (1,), 1.0, math.inf),
        (1, 8, (7,), 0.1, 0.25),
        (5, 2, (3, 5, 7), 5.0, 0.0),
        (9, 5, (1,), 1.0, 0.25),
        (9, 5, (3, 5, 7), 0.1, math.inf),
        (9, 5, (1, 28, 28), 1.0, math.inf),
        (1, 8, (1, 28, 28), 0.0, 0.25),
    ],
)
@EVERY
def test_agrees_with_twin(rule, batch, width, shape, delta, budget) -> None:
    window = random_window(batch, width, shape, delta=delta, ragged=True, seed=width)
    uncertainty, spent = extras(window)
    for u in (uncertainty, None):
        given = (*window, u, spent, rule, 0.4, budget)
        verified = verify_relaxed(*given)
        assert_same(verified, by_keywords(reference.verify_window_relaxed)(*given))
        assert verified.bound.dtype == verified.log_likelihood.dtype == torch.float64
        assert bool((verified.bound >= spent).all())
        assert bool((verified.bound <= max(budget, float(spent.max()))).all())


@pytest.mark.parametrize(("strength", "budget"), [(0.0, math.inf), (0.7, 0.0), (1e6, 0.0)])
@EVERY
@BOTH
def test_nothing_relaxed_is_the_exact_op(verify, rule, strength, budget) -> None:
    window = random_window(300, 6, (3, 4), delta=1.0, ragged=True)
    uncertainty, _ = extras(window)
    exact = (verify_window if verify is verify_relaxed else reference.verify_window)(*window)
    for u in (uncertainty, None):
        spent = torch.zeros(300, dtype=torch.float64)
        out = verify(*window, u, spent, rule, strength, budget)
        for got, expected in zip(out[:4], exact, strict=True):
            torch.testing.assert_close(got, expected, rtol=0, atol=0, equal_nan=True)
        assert not out[4].any()
        assert not out[5].any()


# --- by hand -----------------------------------------------------------------------------------


def one_draft(x_hat: float, u: float, sigma: float = 1.0) -> Window:
    """A draft around 0 of a transition with mean 1: r = x_hat - 1 / 2. Then one with mean 5."""
    return by_numbers([0.0, x_hat], [0.0], [1.0, 5.0], [sigma, 2.0], [u])


ZERO = torch.zeros(1, dtype=torch.float64)
#: r = -1, strength 2 and u = 0.25: a slack of 0.5.
RELAXED = {"temper": -1 / 1.5, "allow": -0.5}


@BOTH
@EVERY
def test_decision_bound_and_likelihood(verify: Any, rule: str) -> None:
    u, gain = torch.tensor([[0.25]]), math.exp(RELAXED[rule]) - math.exp(-1)
    threshold = 1 - math.exp(RELAXED[rule])
    for uniform, accepted, log_likelihood in (
        (threshold + 1e-4, 1, RELAXED[rule] + 1),
        (threshold - 1e-4, 0, math.log1p(-gain)),
    ):
        out = verify(*one_draft(-0.5, uniform), u, ZERO, rule, 2.0)
        assert out[2].item() == accepted
        assert out[0].item() == (7.0 if accepted else 1.5)  # mirrored: 1 + 0.5
        assert out[3].item() == -1.0
        assert out[4].item() == pytest.approx(gain, rel=1e-12)
        assert out[5].item() == pytest.approx(log_likelihood, rel=1e-12)
    # Its mirror image, r = 1, is accepted as ever: less is left there by the mirrored rejections.
    out = verify(*one_draft(1.5, 0.0), u, ZERO, rule, 2.0)
    assert (out[2].item(), out[4].item()) == (1, 0.0)
    assert out[5].item() == pytest.approx(math.log1p(-gain), rel=1e-12)


@BOTH
@EVERY
def test_discrepancy_is_the_distance_of_the_means(verify: Any, rule: str) -> None:
    """Means 1 apart and sigma 0.5: u = 2, and r = (x_hat - 1 / 2) / sigma^2 = -4."""
    window = one_draft(-0.5, 0.3, 0.5)
    told = verify(*window, torch.tensor([[2.0]]), ZERO, rule, 0.3)
    found = verify(*window, None, ZERO, rule, 0.3)
    assert told[4].item() == found[4].item() > 0
    assert found[3].item() == -4.0


@BOTH
def test_allowance_ends_at_certainty(verify: Any) -> None:
    out = verify(*one_draft(-0.5, 0.0), torch.ones(1, 1), ZERO, "allow", 3.0)
    assert out[2].item() == 1
    assert out[4].item() == pytest.approx(1 - math.exp(-1), rel=1e-12)


@BOTH
@pytest.mark.parametrize("u", [0.0, -0.0, -3.0])
@EVERY
def test_no_uncertainty_relaxes_nothing(verify: Any, rule: str, u: float) -> None:
    out = verify(*one_draft(-0.5, 0.6), torch.tensor([[u]]), ZERO, rule, 5.0)
    assert (out[2].item(), out[4].item(), out[5].item()) == (0, 0.0, 0.0)


@BOTH
@EVERY
def test_budget_counts_the_draft_itself(verify: Any, rule: str) -> None:
    """The draft is relaxed if what it costs fits, to the last bit, and else it costs nothing."""
    window, u = one_draft(-0.5, 0.55), torch.tensor([[0.25]])
    spent = torch.tensor([0.125], dtype=torch.float64)
    needed = verify(*window, u, spent, rule, 2.0)[4].item()
    enough = verify(*window, u, spent, rule, 2.0, needed)
    assert (enough[2].item(), enough[4].item()) == (1, needed)
    short = verify(*window, u, spent, rule, 2.0, math.nextafter(needed, 0))
    assert (short[2].item(), short[4].item(), short[5].item()) == (0, 0.125, 0.0)


@BOTH
def test_small_reliefs_are_not_lost_in_rounding(verify: Any) -> None:
    """a' - a of 1e-17, where both round to 1."""
    x_hat = torch.tensor(0.5) - 2.0**-25  # r = -2^-25
    out = verify(*one_draft(float(x_hat), 0.5), torch.ones(1, 1), ZERO, "temper", 2.0**-30)
    assert out[4].item() == pytest.approx(2.0**-55, rel=1e-6)


# --- edges -------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@EVERY
def test_entries_beyond_length_are_ignored(rule: str, value: float) -> None:
    window = random_window(12, 6, (10,), delta=0.7, ragged=True)
    uncertainty, spent = extras(window)
    clean = verify_relaxed(*window, uncertainty, spent, rule, 0.5)
    for b, length in enumerate(window.length.tolist()):
        uncertainty[b, length - 1 :] = value
    given = (*spoil_beyond_length(window, value), uncertainty, spent, rule, 0.5)
    assert_same(verify_relaxed(*given), clean)
    assert_same(clean, by_keywords(reference.verify_window_relaxed)(*given))


@BOTH
@pytest.mark.parametrize(
    ("where", "bad", "given"),
    [
        ("states", math.nan, True),
        ("draft_means", math.inf, False),
        ("target_means", math.nan, False),
        ("target_means", math.inf, True),
    ],
)
@EVERY
def test_non_finite_input_is_never_accepted(rule, given, verify, where, bad) -> None:
    window = random_window(2, 4, (6,), delta=0.0)
    getattr(window, where)[1, 3 if where == "states" else 2, 4] = bad
    u = torch.ones(2, 3) if given else None
    out = verify(*window, u, torch.zeros(2, dtype=torch.float64), rule, 1e300)
    assert out[2].tolist() == [3, 2]
    assert out[4].tolist() == out[5].tolist() == [0.0, 0.0]


@BOTH
@pytest.mark.parametrize("given", [True, False])
@EVERY
def test_deterministic_drafts_are_not_relaxed(rule: str, given: bool, verify: Any) -> None:
    window = random_window(20, 3, (6,), delta=1.0)
    window.sigma[:] = 0
    window.uniforms[:] = 1 - 2.0**-24
    u = torch.ones(20, 2) if given else None
    out = verify(*window, u, torch.zeros(20, dtype=torch.float64), rule, 1e3)
    assert not out[2].any()
    assert not out[4].any()
    assert torch.equal(out[0], window.target_means[:, 0])


# --- values, on the CPU --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"uncertainty": torch.tensor([[0.0] * 3, [0.0, math.nan, 0.0]])},
            "uncertainty: expected finite values, got nan for sample 1, transition 1",
        ),
        (
            {"spent": torch.tensor([0.0, -1.0], dtype=torch.float64)},
            r"spent: expected finite values >= 0, got -1.0+ for sample 1",
        ),
        (
            {"length": torch.tensor([4, 5], dtype=torch.int32)},
            r"length: expected values in 1\.\.4, got 5 for sample 1",
        ),
    ],
)
def test_bad_values(changes: dict[str, Any], message: str) -> None:
    window = random_window(2, 4, (3, 5))
    extra = dict(zip(("uncertainty", "spent"), extras(window), strict=True))
    with pytest.raises(ValueError, match=f"^{message}$"):
        verify_window_relaxed(**(window._asdict() | extra | changes))
