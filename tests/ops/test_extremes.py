"""Every op, and the CUDA kernels' text, against the twin on whatever values a call may have."""

import random
import shutil
from typing import Any

import pytest
import torch

from free import ops
from free.ops.contract import CONTRACTS
from tests.fuzz.draw import draw
from tests.fuzz.spoil import call, spoiled
from tests.ops.examples import Example
from tests.ops.test_operator import alike, compared
from tests.windows import by_numbers

CASES = 60


@pytest.fixture(params=["op", "CUDA's text"])
def kernels_of(request: pytest.FixtureRequest) -> Any:
    if request.param == "op":
        return ops
    if shutil.which("g++") is None:
        pytest.skip("needs g++")
    return request.getfixturevalue("kernels")


@pytest.mark.parametrize("name", CONTRACTS)
def test_extreme_values_agree_with_the_twin(kernels_of: Any, name: str) -> None:
    """Signed zeros, denormals, the largest numbers, the ends of the integers, NaN."""
    for seed in range(CASES):
        case = draw(random.Random(seed), name)
        example = Example(name, case.given)
        actual = compared(example, example.call(getattr(kernels_of, name)))
        if case.comparable:
            alike(actual, compared(example, example.by_twin()), 1e-5)


@pytest.mark.parametrize("verifier", ops.VERIFIERS)
def test_minus_zero_is_no_noise(kernels_of: Any, verifier: str) -> None:
    window = by_numbers([0.0, 1.0], [2.0], [1.0, 5.0], [-0.0, 1.0], [0.5])
    state, advance, accepted, log_ratio = kernels_of.verify_window(*window, verifier)
    assert (state.item(), advance.item(), accepted.item()) == (1.0, 1, 0)
    assert log_ratio.item() == -torch.inf


@pytest.mark.parametrize("rule", ["allow", "temper"])
def test_no_slack_is_too_large_for_a_deterministic_transition(kernels_of: Any, rule: str) -> None:
    """Infinite ones included: the product of two numbers that may be given."""
    window = by_numbers([0.0, 1.0], [2.0], [1.0, 5.0], [0.0, 1.0], [0.5])
    relaxed = {"uncertainty": torch.tensor([[1e30]]), "spent": torch.tensor([0.25]).double()}
    relaxed |= {"rule": rule, "strength": 1e300}
    verified = kernels_of.verify_window_relaxed(**window._asdict(), **relaxed)
    assert [t.item() for t in (*verified[:3], *verified[4:])] == [1.0, 1, 0, 0.25, 0.0]


@pytest.mark.filterwarnings("ignore")  # of torch, about what is made of tensors
def test_calls_that_do_not_fit_are_refused() -> None:
    """And the same seed gives the same call: a failure of ``make fuzz`` can be had again."""
    for seed in range(300):
        rng = random.Random(seed)
        case = spoiled(rng)
        again = spoiled(random.Random(seed))
        assert (case.name, repr(list(case.given))) == (again.name, repr(list(again.given)))
        call(rng, case)
