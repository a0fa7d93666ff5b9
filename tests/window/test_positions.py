"""Deltas by their place in the window."""

import numpy as np
import pytest
from scipy.stats import norm

from free.window.recording import PositionWindow
from free.window.rule import Committed


def _committed(deltas: object) -> Committed:
    one = np.ones(2, dtype=np.int64)
    values = None if deltas is None else np.array(deltas, dtype=np.float64)
    return Committed(one, one, values, {}, one > 0)


def test_places_are_told_apart() -> None:
    rule = PositionWindow(4)
    rule.made(_committed([[0.1, 0.4, np.nan], [0.3, np.nan, np.nan]]))
    rule.made(_committed(None))  # a round without drafts
    rule.made(_committed([[0.2], [np.nan]]))  # near the end windows are shorter
    count, delta, accepts = rule.sums
    np.testing.assert_array_equal(count, [3, 1, 0])
    np.testing.assert_allclose(delta, [0.6, 0.4, 0.0])
    first = 2 * norm.cdf(-np.array([0.1, 0.3, 0.2]) / 2).sum()
    np.testing.assert_allclose(accepts, [first, 2 * norm.cdf(-0.2), 0.0])


def test_windows_are_the_fixed_ones() -> None:
    rule = PositionWindow(4)
    assert rule.learns  # or no deltas are computed
    assert rule.largest == 4
    with pytest.raises(AssertionError):
        rule.choose(np.zeros(1, dtype=np.int64), None)  # before a run
