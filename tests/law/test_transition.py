"""A verified transition has the target's law, and drafts stand as often as theory allows."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest

from free import ops, reference
from tests.law.transition import Verdict, judge, standing

HOW = [
    (verify, verifier)
    for verify in (ops.verify_window, reference.verify_window)
    for verifier in ops.VERIFIERS
]


@pytest.fixture(params=HOW, ids=lambda how: f"{how[0].__module__.split('.')[1]}, {how[1]}")
def how(request: pytest.FixtureRequest) -> Any:
    return request.param


def judged(how: Any, *arguments: Any, **options: Any) -> Verdict:
    verify, verifier = how
    return judge(partial(verify, verifier=verifier), *arguments, verifier=verifier, **options)


@pytest.mark.parametrize("delta", [0.0, 0.1, 1.0, 3.0])
@pytest.mark.parametrize("dim", [1, 2, 16, 784])
def test_one_draft(how: Any, dim: int, delta: float) -> None:
    verdict = judged(how, dim, delta)
    assert verdict.passes, verdict


@pytest.mark.parametrize("ragged", [False, True], ids=["full", "ragged"])
@pytest.mark.parametrize("window", [3, 8])
@pytest.mark.parametrize("delta", [0.3, 1.5])
def test_deeper_windows(how: Any, delta: float, window: int, ragged: bool) -> None:
    verdict = judged(how, 3, delta, transitions=8, window=window, ragged=ragged)
    assert verdict.passes, verdict


def test_window_of_one_is_the_target(how: Any) -> None:
    verdict = judged(how, 2, 1.0, transitions=2, window=1)
    assert verdict.passes, verdict


#: Means so far apart that reflection accepts .2 of the drafts, and .999.
STRONG, HARDLY = 2.5631, 0.0025066


@pytest.mark.parametrize("delta", [STRONG, HARDLY], ids=["strong", "hardly any"])
@pytest.mark.parametrize(
    ("verifier", "window"),
    [
        pytest.param(v, w, marks=[] if (v, w) == ("block", 16) else pytest.mark.slow)
        for v in ops.VERIFIERS
        for w in (2, 4, 8, 12, 16)
    ],
)
def test_many_chains(verifier: str, delta: float, window: int) -> None:
    """200,000 chains of 16 transitions."""
    verdict = judged(
        (ops.verify_window, verifier), 2, delta, transitions=16, window=window, chains=200_000
    )
    assert verdict.passes, verdict


def test_block_verification_keeps_more() -> None:
    assert standing("reflection", STRONG, 1)[0] == pytest.approx(0.2, abs=1e-4)
    assert standing("reflection", HARDLY, 1)[0] == pytest.approx(0.999, abs=1e-6)
    for delta in (HARDLY, 0.3, 1.0, STRONG):
        reflection, block = (standing(name, delta, 15) for name in ("reflection", "block"))
        assert block[0] == pytest.approx(reflection[0], rel=1e-3)  # one draft: nothing to gain
        assert (block[1:] > reflection[1:]).all()
