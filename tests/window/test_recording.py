"""Deltas that fixed windows note."""

import numpy as np
from scipy.stats import norm

from free.window.acceptance import FRESH, RECYCLED
from free.window.recording import PositionWindow, RecordingWindow
from free.window.rule import Committed, FixedWindows


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


def test_recorded_by_what_the_teacher_had_seen() -> None:
    rule = RecordingWindow(4)
    assert rule.learns  # or no deltas are computed
    rule._fixed, rule._steps = FixedWindows(4, 16, 1), 16
    known = np.array([2, 1])  # one draft was seen before, in the first sample
    assert rule.choose(np.ones(2, dtype=np.int64), known).lengths.tolist() == [4, 4]
    rule.made(_committed([[0.02, 0.4, np.nan], [0.4, np.nan, np.nan]]))
    rule.made(_committed(None))
    delta = np.exp(rule.record().log_delta)
    assert rule._counts[RECYCLED].sum() == 1
    assert rule._counts[FRESH].sum() == 2
    assert delta[RECYCLED, 0, 1] < 0.3 < delta[FRESH, 0, 1] < 0.5
