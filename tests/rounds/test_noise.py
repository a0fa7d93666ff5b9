"""Counter-based noise: known answers, laws, and what a number depends on."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from free import ops, reference
from free.rounds import noise as random
from free.rounds.noise import Purpose, as_seeds
from tests.law.stats import correlation_p, ks_normal

BOTH = pytest.mark.parametrize("draw", [random.normal, random.uniform])


def counters(rows: int) -> tuple[Tensor, Tensor, Tensor]:
    """Seeds, transitions and rounds across their whole range."""
    seeds = torch.randint(-(2**63), 2**63 - 1, (rows,))
    return seeds, torch.randint(0, 2**32, (rows,)), torch.randint(0, 2**32, (rows,))


# --- values --------------------------------------------------------------------------------------


def test_known_answer() -> None:
    # Random123, philox4x32-10, counter 0 and key 0; the upper 24 bits of each word.
    words = [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]
    expected = [(word >> 8) / 2**24 for word in words]
    assert random.uniform(0, 0, 0, 0, (4,)).flatten().tolist() == expected


def test_normals_are_as_accurate_as_stated() -> None:
    arguments = (*counters(300), int(Purpose.TRANSITION), 4096)
    error = (ops.philox_normal(*arguments) - reference.philox_normal(*arguments)).abs()
    assert error.max().item() < 2e-6
    assert error.mean().item() < 5e-8


# --- laws ----------------------------------------------------------------------------------------


def test_normals_are_standard_normal() -> None:
    z = random.normal(range(500), 7, 2, Purpose.TRANSITION, (1000,)).flatten()
    assert ks_normal(z) > 1e-3
    n = len(z)
    assert abs(z.mean().item()) < 4 / n**0.5
    assert abs(z.square().mean().item() - 1) < 4 * (2 / n) ** 0.5
    assert abs(z.pow(3).mean().item()) < 4 * (15 / n) ** 0.5
    assert abs(z.pow(4).mean().item() - 3) < 4 * (96 / n) ** 0.5
    # Tails: two-sided masses beyond 3 and 4.
    for limit in (3.0, 4.0):
        expected = n * math.erfc(limit / 2**0.5)
        assert abs(int((z.abs() > limit).sum()) - expected) < 4 * expected**0.5


def test_uniforms_are_uniform() -> None:
    """In the half-open interval; multiples of 2**-24."""
    u = random.uniform(range(500), 7, 2, Purpose.DECISION, (1000,)).flatten()
    assert 0 <= u.min().item() <= u.max().item() < 1
    assert torch.equal(u * 2**24, (u * 2**24).round())
    assert ks_normal(torch.special.ndtri(u.double().clamp(2**-25))) > 1e-3


def test_neighbouring_counters_are_independent() -> None:
    rows, zero = torch.arange(100_000), torch.zeros(100_000, dtype=torch.int64)
    five, purpose = zero + 5, Purpose.TRANSITION
    for drawn in ((rows, five, zero), (five, rows, zero), (five, zero, rows)):
        z = random.normal(*drawn, purpose, (1,))[:, 0]
        assert correlation_p(z[:-1], z[1:]) > 1e-3
    z = random.normal(rows, zero, zero, purpose, (4,))
    other = random.normal(rows, zero, zero, Purpose.DECISION, (4,))
    assert correlation_p(z[:, 0], other[:, 0]) > 1e-3
    for a in range(4):
        for b in range(a):
            assert correlation_p(z[:, a], z[:, b]) > 1e-3
            assert correlation_p(z[:, a].square(), z[:, b].square()) > 1e-3


# --- what a number depends on --------------------------------------------------------------------


@BOTH
def test_a_number_does_not_depend_on_its_batch_its_row_or_the_threads(draw: Any) -> None:
    seeds, transition, rounds = counters(40)
    shape, purpose = (3, 5, 7), Purpose.TRANSITION
    together = draw(seeds, transition, rounds, purpose, shape)
    order = torch.randperm(40)
    shuffled = draw(seeds[order], transition[order], rounds[order], purpose, shape)
    assert torch.equal(shuffled, together[order])
    for r in range(40):
        alone = draw(seeds[r : r + 1], transition[r : r + 1], rounds[r : r + 1], 1, shape)
        assert torch.equal(alone[0], together[r])
    wide = draw(3, 1, 2, Purpose.INITIAL, (1000,))
    for size in (1, 5, 64, 100):
        assert torch.equal(draw(3, 1, 2, Purpose.INITIAL, (size,)), wide[:, :size])
    single = draw(range(80), 1, 1, purpose, (4096,))
    torch.set_num_threads(2)
    try:
        several = draw(range(80), 1, 1, purpose, (4096,))
    finally:
        torch.set_num_threads(1)
    assert torch.equal(single, several)


def test_purposes_keep_their_values() -> None:
    values = {"INITIAL": 0, "TRANSITION": 1, "DECISION": 2, "LABEL": 3}
    assert {p.name: p.value for p in Purpose} == values


# --- arguments -----------------------------------------------------------------------------------


@BOTH
def test_shapes_and_types_of_arguments(draw: Any) -> None:
    k = torch.tensor([1, 2, 3])
    expected = draw(torch.tensor([5, 5, 5]), k, torch.zeros(3).long(), 1, (2, 3))
    assert expected.shape == (3, 2, 3)
    assert expected.dtype == torch.float32
    assert torch.equal(draw([5, 5, 5], [1, 2, 3], [0, 0, 0], Purpose.TRANSITION, (2, 3)), expected)
    assert torch.equal(draw(5, k.int(), 0, 1, (2, 3)), expected)
    assert draw(5, 1, 0, 1, ()).shape == (1,)
    assert draw([], 1, 0, 1, (4,)).shape == (0, 4)


def test_seeds_are_64_bit_keys() -> None:
    assert as_seeds(3).tolist() == [3]
    ends = as_seeds([0, 2**63 - 1, 2**63, 2**64 - 1, -1]).tolist()
    assert ends == [0, 2**63 - 1, -(2**63), -1, -1]
    drawn = random.normal([2**64 - 1, -1, 2**32 - 1], 0, 0, Purpose.TRANSITION, (4,))
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[2])


#: Values of each argument that are no integers, out of range, or of another shape.
NO_INTEGERS = (1.5, "1", [1.0], True, [True], torch.zeros(1), None)
SEED = r"expected values in -2\*\*63\.\.2\*\*64-1, got"
WORD = r"expected values in 0\.\.4294967295, got"
BAD: list[tuple[str, Any, type[Exception], str]] = [
    *((name, value, TypeError, "expected integers, got")
      for name in ("seeds", "transition", "round") for value in NO_INTEGERS),
    *(("seeds", value, ValueError, SEED) for value in (2**64, -(2**63) - 1, [0, 2**70])),
    *((name, value, ValueError, WORD)
      for name in ("transition", "round")
      for value in (-1, 2**32, [0, 2**40], torch.tensor([-1]), torch.tensor([2**32]))),
    *(("shape", value, ValueError, "expected positive integers, got")
      for value in ((0,), (2, -1), (2.0,), (True,))),
    *(("purpose", value, ValueError, r"expected (a value in 0\.\.4294967295|at least 0), got")
      for value in (-1, 2**32)),
    ("seeds", torch.zeros(1, 1).long(), ValueError, r"expected shape \[R\], got \[1, 1\]$"),
    ("round", torch.tensor(0), ValueError, r"expected shape \[R\], got \[\]$"),
]  # fmt: skip


def test_bad_arguments() -> None:
    right = {"seeds": 0, "transition": 0, "round": 0, "purpose": 1, "shape": (4,)}
    for name, value, error, message in BAD:
        with pytest.raises(error, match=f"^{name}: {message}"):
            random.normal(**{**right, name: value})
    with pytest.raises(ValueError, match=r"^transition: expected shape \[2\], got \[3\]$"):
        random.normal([0, 1], [0, 1, 2], 0, Purpose.TRANSITION, (4,))
