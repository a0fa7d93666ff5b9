"""A verified transition has the target's law, and drafts stand as often as theory allows."""

from __future__ import annotations

import pytest

from free import ops, reference
from tests.law.transition import Verify, judge

VERIFIERS = {"compiled": ops.verify_window, "twin": reference.verify_window}


@pytest.fixture(params=VERIFIERS)
def verify(request: pytest.FixtureRequest) -> Verify:
    return VERIFIERS[request.param]


@pytest.mark.parametrize("delta", [0.0, 0.1, 1.0, 3.0])
@pytest.mark.parametrize("dim", [1, 2, 16, 784])
def test_one_draft(verify: Verify, dim: int, delta: float) -> None:
    verdict = judge(verify, dim, delta)
    assert verdict.passes, verdict


@pytest.mark.parametrize("ragged", [False, True], ids=["full", "ragged"])
@pytest.mark.parametrize("window", [3, 8])
@pytest.mark.parametrize("delta", [0.3, 1.5])
def test_deeper_windows(verify: Verify, delta: float, window: int, ragged: bool) -> None:
    verdict = judge(verify, 3, delta, transitions=8, window=window, ragged=ragged)
    assert verdict.passes, verdict


def test_window_of_one_is_the_target(verify: Verify) -> None:
    verdict = judge(verify, 2, 1.0, transitions=2, window=1)
    assert verdict.passes, verdict
