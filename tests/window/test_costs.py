"""Cost curves: linear between knots, never falling, following what is seen."""

import numpy as np
import pytest

from free.window.costs import CostCurve, RoundCosts


def test_linear_between_knots_and_beyond_and_never_falling() -> None:
    curve, rows = CostCurve([1, 2, 8], [1.0, 2.0, 5.0]), [0, 1, 1.5, 5, 8, 10]
    np.testing.assert_allclose(curve(rows), [0, 1, 1.5, 3.5, 5, 6])
    np.testing.assert_allclose([curve.at(row) for row in rows], curve(rows))
    np.testing.assert_allclose(CostCurve([4], [2.0])([2, 4, 8]), [2, 2, 4])
    curve = CostCurve([1, 2, 4], [1.0, 3.0, 2.0])  # a lucky measurement
    np.testing.assert_allclose(curve([2, 4]), [3, 3])
    curve.observe(1, 50.0)
    assert (np.diff(curve(np.arange(1, 9))) >= 0).all()


@pytest.mark.parametrize("factor", [0.3, 4.0])
def test_follows_what_is_seen(factor: float) -> None:
    curve = CostCurve([1, 2, 4, 8], [1.0, 1.5, 2.5, 4.5])
    for _ in range(8):
        for rows in (1, 2, 4, 8):
            curve.observe(rows, factor * (0.5 + 0.5 * rows))
    np.testing.assert_allclose(curve([1, 2, 4, 8]), factor * np.array([1, 1.5, 2.5, 4.5]), rtol=0.1)


def test_one_outlier_does_little() -> None:
    curve = CostCurve([1, 2, 4, 8], [1.0, 1.5, 2.5, 4.5])
    curve.observe(4, 1e6)
    assert curve(4) < 5 * 2.5
    curve.observe(4, 0.0)  # no time at all says nothing
    for _ in range(6):
        curve.observe(4, 2.5)
    assert curve(4) < 1.2 * 2.5


@pytest.mark.parametrize(
    ("rows", "seconds", "message"),
    [
        ([], [], "vectors of one length"),
        ([2, 1], [1.0, 1.0], "rows must be rising"),
        ([1], [0.0], "seconds must be positive"),
        ([1], [float("nan")], "seconds must be positive"),
    ],
)
def test_bad_curves(rows: list[int], seconds: list[float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        CostCurve(rows, seconds)


def _costs() -> RoundCosts:
    line = CostCurve([1, 10], [1.0, 10.0])
    flat = CostCurve([1, 10], [2.0, 2.0])
    draft = {None: ("calls", line), 1: ("rows", line), 2: ("windows", line)}
    return RoundCosts(line, flat, flat, draft)


def test_rounds_add_up_and_correct_their_parts() -> None:
    costs = _costs()
    np.testing.assert_allclose(costs.plain_round(3), 5.0)
    # 3 samples, 5 drafts, at most 2 of one sample: 8 rows; drafted in 2 calls, 5 rows, or 1 graph.
    for sweeps, drafting in ((None, 6.0), (1, 5.0), (2, 3.0)):
        np.testing.assert_allclose(costs.round(3, 5, 2, sweeps), 8.0 + drafting + 2.0)
    spent = {"teacher": 16.0, "draft": 12.0, "verify": 1.0, "bookkeeping": 3.0}
    for _ in range(30):
        costs.observe(3, 5, 2, None, spent)
    np.testing.assert_allclose(costs.round(3, 5, 2, None), 32.0, rtol=0.02)


def test_json_and_back() -> None:
    again = RoundCosts.from_dict(_costs().to_dict())
    for sweeps in (None, 1, 2):
        np.testing.assert_allclose(again.round(3, 5, 2, sweeps), _costs().round(3, 5, 2, sweeps))
    for damaged in ({}, {"teacher": 3}, {**_costs().to_dict(), "draft": {"1": {"by": "luck"}}}):
        with pytest.raises(ValueError, match="costs must"):
            RoundCosts.from_dict(damaged)
