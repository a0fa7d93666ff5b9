"""verify_window against its twin, at the edges of its domain, and with values out of range."""

import math

import pytest
import torch
from torch import Tensor

from free import ops, reference
from free.ops import Verified, verify_window
from tests.windows import Window, by_numbers, random_window, spoil_beyond_length

EVERY = pytest.mark.parametrize("verifier", ops.VERIFIERS)

# --- agreement with the twin -------------------------------------------------------------------


def assert_same(actual: Verified, expected: tuple[Tensor, ...]) -> None:
    state, advance, accepted, log_ratio = expected
    assert torch.equal(actual.accepted, accepted)
    assert torch.equal(actual.advance, advance)
    torch.testing.assert_close(actual.log_ratio, log_ratio, rtol=1e-6, atol=1e-6, equal_nan=True)
    torch.testing.assert_close(actual.state, state, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(
    ("batch", "width", "shape", "delta"),
    [
        (1, 1, (1,), 0.0),
        (1, 8, (7,), 1.0),
        (5, 2, (16,), 5.0),
        (9, 5, (1,), 0.1),
        (9, 5, (3, 5, 7), 1.0),
        (1, 8, (1, 28, 28), 0.1),
        (5, 2, (4, 32, 32), 0.0),
        (9, 5, (4, 32, 32), 5.0),
    ],
)
@EVERY
def test_agrees_with_twin(verifier, batch, width, shape, delta) -> None:
    window = random_window(batch, width, shape, delta=delta, ragged=True, seed=width)
    verified = verify_window(*window, verifier)
    assert_same(verified, reference.verify_window(*window, verifier))
    assert verified.state.shape == (batch, *shape)
    assert verified.log_ratio.shape == (batch, width - 1)
    assert verified.advance.dtype == verified.accepted.dtype == torch.int32
    assert torch.equal(verified.advance, verified.accepted + 1)
    assert bool((verified.advance <= window.length).all())


def test_sums_are_accurate_in_many_dimensions() -> None:
    window = random_window(2, 3, (65_536,), delta=0.2)
    m_hat, m, x_hat = (
        t.double() for t in (window.draft_means, window.target_means[:, :-1], window.states[:, 1:])
    )
    sigma = window.sigma[:, :-1, None].double()
    z, shift = (x_hat - m_hat) / sigma, (m_hat - m) / sigma
    exact = -(z * shift).sum(-1) - shift.square().sum(-1) / 2
    always = window._replace(uniforms=torch.full((2, 2), 0.999999))
    log_ratio = verify_window(*always).log_ratio
    torch.testing.assert_close(log_ratio.double(), exact, rtol=2e-6, atol=2e-6)


# --- invariance --------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [math.nan, math.inf, -1.0])
@EVERY
def test_entries_beyond_length_are_ignored(verifier: str, value: float) -> None:
    window = random_window(12, 6, (10,), delta=0.7, ragged=True)
    spoiled = spoil_beyond_length(window, value)
    clean = verify_window(*window, verifier)
    assert_same(verify_window(*spoiled, verifier), clean)
    assert_same(Verified(*reference.verify_window(*spoiled, verifier)), clean)
    assert bool(clean.state.isfinite().all())


# --- edges -------------------------------------------------------------------------------------

BOTH = pytest.mark.parametrize("verify", [verify_window, reference.verify_window])


def one_draft(x_hat: float, m_hat: float, m: float, sigma: float, u: float) -> Window:
    """A window of one drafted transition in one dimension, then one with mean 5 and sigma 2."""
    return by_numbers([0.0, x_hat], [m_hat], [m, 5.0], [sigma, 2.0], [u])


#: Numbers of :func:`one_draft`; state (None: not looked at), accepted and log ratio by hand.
BY_HAND = [
    # An accepted draft is followed by a draw of the target.
    ((1.5, 1.0, 1.0, 0.5, 0.999), 7.0, 1, 0.0),
    # z = 1, Delta = 2: log ratio -2 - 2 = -4; reflected to m + sigma * (-1).
    ((2.5, 2.0, 1.0, 0.5, 0.5), 0.5, 0, -4.0),
    # Accepted from u = 1 - exp(-4) = .981684 on.
    ((2.5, 2.0, 1.0, 0.5, 0.0), 0.5, 0, -4.0),
    ((2.5, 2.0, 1.0, 0.5, 0.98168), 0.5, 0, -4.0),
    ((2.5, 2.0, 1.0, 0.5, 0.98169), 7.0, 1, -4.0),
    # What the target prefers is accepted at u = 0, and all with equal means, whatever u.
    ((0.9, 2.0, 1.0, 0.5, 0.0), 7.0, 1, None),
    ((9.0, 1.0, 1.0, 1e-3, 0.0), 7.0, 1, 0.0),
    ((9.0, 1.0, 1.0, 1e-3, 0.5), 7.0, 1, 0.0),
    ((9.0, 1.0, 1.0, 1e-3, 1 - 2**-24), 7.0, 1, 0.0),
    # The ratio is negative and u = 0, but |Delta| is 1e-12, resp. 1e-9.
    ((1.0, 1e-12, 0.0, 1.0, 0.0), None, 1, None),
    ((1.0, 1e-9, 0.0, 1.0, 0.0), None, 0, None),
    # Delta = 2 again, at a scale where squares of float32 are 0.
    ((2.5e-30, 2e-30, 1e-30, 0.5e-30, 0.5), 0.5e-30, 0, -4.0),
    # A deterministic draft stands where the means are equal; elsewhere it becomes the mean.
    ((1.0, 1.0, 1.0, 0.0, 0.9), 7.0, 1, 0.0),
    ((1.0, 1.0, 0.5, 0.0, 1 - 2**-24), 0.5, 0, -math.inf),
    ((1.0, 1.0, 1 + 2**-23, 0.0, 1 - 2**-24), 1 + 2**-23, 0, -math.inf),
    ((0.0, 0.0, 1e-30, 0.0, 1 - 2**-24), float(torch.tensor(1e-30)), 0, -math.inf),
]


@BOTH
@pytest.mark.parametrize(("numbers", "state", "accepted", "log_ratio"), BY_HAND)
def test_one_draft_by_hand(verify, numbers, state, accepted, log_ratio) -> None:
    out = verify(*one_draft(*numbers))
    assert (out[1].item(), out[2].item()) == (accepted + 1, accepted)
    # Exact, but for the scale that float32 rounds.
    rel = 1e-5 if 0 < numbers[3] < 1e-29 else 0
    for value, expected in ((out[0], state), (out[3], log_ratio)):
        assert expected is None or value.item() == pytest.approx(expected, rel=rel, abs=0)


@BOTH
@pytest.mark.parametrize(
    ("where", "bad", "sigma"),
    [
        ("states", math.nan, 0.5),
        ("states", math.inf, 0.0),
        ("draft_means", -math.inf, 0.5),
        ("draft_means", math.nan, 0.0),
        ("target_means", math.inf, 0.5),
        ("target_means", math.nan, 0.0),
    ],
)
@EVERY
def test_non_finite_input_is_never_accepted(verifier, verify, where, bad, sigma) -> None:
    window = random_window(2, 4, (6,), delta=0.0)
    window.sigma[1, 2] = sigma
    window.uniforms[:] = 1 - 2**-24
    getattr(window, where)[1, 3 if where == "states" else 2, 4] = bad
    _, advance, accepted, log_ratio = verify(*window, verifier)
    assert accepted.tolist() == [3, 2]
    assert advance.tolist() == [4, 3]
    assert log_ratio[1].isnan().tolist() == [False, False, True]


# --- values, on the CPU --------------------------------------------------------------------------

GOOD = random_window(2, 4, (3, 5))


@pytest.mark.parametrize(
    ("name", "place", "values", "message"),
    [
        ("length", (1,), (0, 5, -1), r"length: expected values in 1\.\.4, got {} for sample 1"),
        ("sigma", (1, 3), (-0.5, math.nan, math.inf), "sigma: .* values >= 0, .* 1, transition 3"),
        ("uniforms", (0, 2), (1.0, -1e-6, math.nan), r"uniforms: .* \[0, 1\), .* 0, transition 2"),
    ],
)
def test_values_out_of_range(name, place, values, message) -> None:
    for value in values:
        tensor = getattr(GOOD, name).clone()
        tensor[place] = value
        with pytest.raises(ValueError, match=f"^{message.format(value)}$"):
            verify_window(**(GOOD._asdict() | {name: tensor}))


def test_the_twin_names_the_verifiers() -> None:
    expected = "^verifier: expected one of 'reflection', 'block', got 'blocks'$"
    with pytest.raises(ValueError, match=expected):
        reference.verify_window(*GOOD, verifier="blocks")
