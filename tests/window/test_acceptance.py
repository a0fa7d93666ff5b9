"""What drafts are expected to do, and what a record makes of what they did."""

import numpy as np
import pytest
from scipy.stats import norm

from free.window.acceptance import (
    DISTANCES,
    FRESH,
    PARTS,
    RECYCLED,
    AcceptanceEstimate,
    AcceptanceRecord,
    acceptance,
    equivalent,
    places,
    reached,
    read_records,
    write_records,
)

SHAPE = (2, len(DISTANCES), PARTS)


def test_acceptance_is_equation_40_and_equivalent_its_inverse() -> None:
    delta = np.array([1e-3, 0.1, 1.0, 4.0])
    np.testing.assert_allclose(acceptance(delta), 2 * norm.cdf(-delta / 2), rtol=1e-12)
    np.testing.assert_allclose(equivalent(1.0 - acceptance(delta)), delta, rtol=1e-6)
    assert np.isfinite(np.log(equivalent(np.array([0.0, 1.0])))).all()


def test_places_of_a_window() -> None:
    """Three rows are known: the last transition's, and two of discarded states."""
    kind, distance, part = places(np.array([10, 0]), np.array([3, 1]), 4, 32)
    assert kind.tolist() == [[RECYCLED, RECYCLED, FRESH, FRESH], [FRESH] * 4]
    assert distance.tolist() == [[1, 2, 1, 2], [1, 2, 3, 4]]
    assert part.tolist() == [[5, 5, 6, 6], [0, 0, 1, 1]]
    # Nothing is drafted past the last transition.
    last, estimate = np.array([29]), AcceptanceEstimate(1, 32)
    expected = estimate.expect(AcceptanceRecord(), last, np.array([1]), 4)
    assert np.isfinite(expected).tolist() == [[True, True, False, False]]
    assert reached(expected)[0, 2:].tolist() == [0.0, 0.0]


@pytest.mark.parametrize("delta", [0.05, 0.3, 1.0])
def test_reached_under_either_verifier(delta: float) -> None:
    """Reflection: one after the other. Block: the mean of p_j, simulated."""
    deltas = np.full((1, 16), delta)
    np.testing.assert_allclose(
        reached(deltas)[0], acceptance(np.array([delta])) ** np.arange(1, 17), rtol=1e-9
    )
    generator = np.random.default_rng(0)
    log_p, simulated = np.zeros(200_000), []
    for _ in range(16):
        log_p = np.minimum(0.0, log_p + generator.normal(-(delta**2) / 2, delta, log_p.size))
        simulated.append(np.exp(log_p).mean())
    np.testing.assert_allclose(reached(deltas, "block")[0], simulated, rtol=0.02, atol=0.003)


def test_spread_deltas_are_worth_their_mean_rejection() -> None:
    """Not that of their geometric mean, which is less: both the record and its correction."""
    generator = np.random.default_rng(0)
    spread = 0.3 * np.exp(0.8 * generator.normal(size=(1, 5000)))
    rejection = 1.0 - acceptance(spread)
    sums, counts = np.zeros((2, *SHAPE))
    sums[FRESH, 0], counts[FRESH, 0] = rejection.sum(), rejection.size
    recorded = np.exp(AcceptanceRecord.of(sums, counts).log_delta[FRESH, 0, :1])
    assert 1.0 - acceptance(recorded)[0] == pytest.approx(rejection.mean(), rel=0.01)

    estimate, prior = AcceptanceEstimate(1, 100), AcceptanceRecord(np.full(SHAPE, np.log(0.3)))
    k, known = np.array([20]), np.array([1])
    corrected = []
    for delta in spread[0, :2000]:
        estimate.update(prior, k, known, np.array([[delta]]))
        corrected.append(estimate.expect(prior, k, known, 1)[0, 0])
    believed = np.mean(1.0 - acceptance(np.array(corrected[100:])))
    naive = 1.0 - acceptance(np.array([0.3]))[0]
    assert abs(believed - rejection.mean()) < 0.5 * abs(naive - rejection.mean())


@pytest.mark.parametrize(("truth", "share"), [(0.02, 0.75), (3.0, 0.3), (60.0, 0.2)])
def test_committed_deltas_correct_the_record(truth: float, share: float) -> None:
    """Each sample's by its own."""
    estimate, record = AcceptanceEstimate(2, 100), AcceptanceRecord(np.full(SHAPE, np.log(0.3)))
    k, known = np.array([20, 20]), np.array([1, 1])
    deltas = np.array([[truth, np.nan], [np.nan, np.nan]])
    for _ in range(3):
        estimate.update(record, k, known, deltas)
    first, second = estimate.expect(record, k, known, 1)[:, 0]
    assert second == pytest.approx(0.3)
    assert abs(np.log(first / truth)) < share * abs(np.log(0.3 / truth))
    estimate.keep(np.array([False, True]))
    assert estimate.expect(record, k[1:], known[1:], 1)[0, 0] == second


def test_a_record_of_what_was_seen() -> None:
    sums, counts = np.zeros((2, *SHAPE))
    for kind, delta in ((FRESH, 0.2), (RECYCLED, 0.05)):
        sums[kind, 0], counts[kind, 0] = 200 * (1 - acceptance(np.array([delta]))), 200
    record = AcceptanceRecord.of(sums, counts)
    np.testing.assert_allclose(np.exp(record.log_delta[FRESH]), 0.2, rtol=0.02)
    np.testing.assert_allclose(np.exp(record.log_delta[RECYCLED]), 0.05, rtol=0.02)
    with pytest.raises(ValueError, match="no draft was recorded"):
        AcceptanceRecord.of(0 * sums, 0 * counts)


def test_records_on_disk() -> None:
    records = {None: AcceptanceRecord(), 2: AcceptanceRecord(np.full(SHAPE, -1.0))}
    again = read_records(write_records(records))
    assert list(again) == [None, 2]
    np.testing.assert_allclose(again[2].log_delta, -1.0)
    for damaged in ({"one": []}, {"1": [[1.0]]}, {"1": "x"}, [3]):
        with pytest.raises(ValueError, match="acceptance must hold a table"):
            read_records(damaged)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"log_delta must be finite, of shape"):
        AcceptanceRecord(np.full(SHAPE, np.nan))
