"""A verified transition has the target's law, and drafts stand as often as theory allows.

20,000 chains a row; what can be got wrong is found by the tests that the right verifier passes.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch

from free import ops, reference
from tests.law import planted
from tests.law.transition import Verdict, judge, standing
from tests.windows import random_window

OP, TWIN = ops.verify_window, reference.verify_window
#: Means so far apart that reflection accepts .2 of the drafts, and .999.
STRONG, HARDLY = 2.5631, 0.0025066


def judged(verify: Any, verifier: str, *arguments: Any, **options: Any) -> Verdict:
    return judge(partial(verify, verifier=verifier), *arguments, verifier=verifier, **options)


@pytest.mark.parametrize(
    ("verifier", "verify", "dim", "delta"),
    [
        *(("reflection", OP, *row) for row in [(1, 0.1), (2, 1.0), (16, 3.0), (784, 1.0)]),
        *(("block", OP, *row) for row in [(1, 3.0), (2, 1.0), (16, 0.0), (784, 1.0)]),
        ("reflection", TWIN, 2, 3.0),
        ("block", TWIN, 16, 0.1),
    ],
)
def test_one_draft(verifier: str, verify: Any, dim: int, delta: float) -> None:
    verdict = judged(verify, verifier, dim, delta)
    assert verdict.passes, verdict


EITHER = [(OP, 1.5, 3, True), (OP, STRONG, 8, False), (OP, HARDLY, 8, False), (TWIN, 1.5, 3, True)]


@pytest.mark.parametrize(
    ("verifier", "verify", "delta", "window", "ragged"),
    [
        *((verifier, *row) for verifier in ops.VERIFIERS for row in EITHER),
        ("reflection", OP, 0.3, 3, False),
        ("reflection", OP, 1.0, 1, False),  # the target's own
        ("block", OP, 1.5, 8, False),
        ("block", OP, 0.3, 8, True),
    ],
)
def test_deeper_windows(verifier, verify, delta, window, ragged) -> None:
    verdict = judged(verify, verifier, 3, delta, transitions=8, window=window, ragged=ragged)
    assert verdict.passes, verdict


@pytest.mark.slow
@pytest.mark.parametrize("delta", [STRONG, HARDLY], ids=["strong", "hardly any"])
@pytest.mark.parametrize("window", [2, 4, 8, 12, 16])
@pytest.mark.parametrize("verifier", ops.VERIFIERS)
def test_many_chains(verifier: str, delta: float, window: int) -> None:
    """200,000 chains of 16 transitions."""
    verdict = judged(OP, verifier, 2, delta, transitions=16, window=window, chains=200_000)
    assert verdict.passes, verdict


def test_block_verification_keeps_more() -> None:
    assert standing("reflection", STRONG, 1)[0] == pytest.approx(0.2, abs=1e-4)
    assert standing("reflection", HARDLY, 1)[0] == pytest.approx(0.999, abs=1e-6)
    for delta in (HARDLY, 0.3, 1.0, STRONG):
        reflection, block = (standing(name, delta, 15) for name in ("reflection", "block"))
        assert block[0] == pytest.approx(reflection[0], rel=1e-3)  # one draft: nothing to gain
        assert (block[1:] > reflection[1:]).all()


# --- mistakes ------------------------------------------------------------------------------------


@pytest.mark.parametrize("dim", [2, 16])
@pytest.mark.parametrize("bug", planted.MISTAKES[:-1])
def test_mistakes_break_the_law(bug: Callable[..., Any], dim: int) -> None:
    """Not only the rate of acceptance."""
    verdict = judge(planted.planted(bug), dim, 1.0)
    assert verdict.p < 1e-6, verdict


@pytest.mark.parametrize("bug", planted.MISTAKES_OF_BLOCKS)
def test_mistakes_of_block_verification_break_the_law(bug: Callable[..., Any]) -> None:
    """Not only the number of drafts that stand; 40,000 chains."""
    how = {"transitions": 8, "window": 8, "chains": 40_000}
    verdict = judge(planted.planted(bug), 2, 1.0, verifier="block", **how)
    assert verdict.p < 1e-6, verdict


def test_the_scaffold_of_planted_blocks_is_sound() -> None:
    """Ending a block where the kernel did gives what the kernel gave: bugs are the bugs' own."""
    window = planted.Window(*random_window(500, 7, (5,), delta=1.0, ragged=True))
    out = planted.verify_block(*window)
    last = torch.arange(6) == out.accepted[:, None] - 1
    again = planted.ends_after(window, out.accepted, torch.where(last, 0.0, planted.FAILS))
    assert torch.equal(again.accepted, out.accepted)
    torch.testing.assert_close(again.state, out.state)
