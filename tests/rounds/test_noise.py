"""Counter-based noise: known answers, laws, and what a number depends on."""

from __future__ import annotations

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


@pytest.mark.parametrize("size", [1, 2, 3, 4, 5, 63, 64, 65, 130, 784])
def test_agrees_with_twin(size: int) -> None:
    arguments = (*counters(9), int(Purpose.DECISION), size)
    uniforms = ops.philox_uniform(*arguments)
    assert torch.equal(uniforms, reference.philox_uniform(*arguments))
    normals = ops.philox_normal(*arguments)
    torch.testing.assert_close(normals, reference.philox_normal(*arguments), rtol=3e-6, atol=3e-6)


def test_normals_are_as_accurate_as_stated() -> None:
    arguments = (*counters(300), int(Purpose.TRANSITION), 4096)
    error = (ops.philox_normal(*arguments) - reference.philox_normal(*arguments)).abs()
    assert error.max().item() < 2e-6
    assert error.mean().item() < 5e-8


def test_uniforms_are_in_the_half_open_interval() -> None:
    u = random.uniform(range(1000), 3, 1, Purpose.DECISION, (1000,))
    assert u.min().item() >= 0
    assert u.max().item() < 1
    assert torch.equal(u * 2**24, (u * 2**24).round())


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
    u = random.uniform(range(500), 7, 2, Purpose.DECISION, (1000,)).flatten().double()
    assert ks_normal(torch.special.ndtri(u.clamp(2**-25))) > 1e-3


@pytest.mark.parametrize("other", ["seed", "transition", "round", "purpose", "element"])
def test_neighbouring_counters_are_independent(other: str) -> None:
    rows = torch.arange(100_000)
    zero = torch.zeros_like(rows)
    drawn = {
        "seed": (rows, zero + 5, zero, Purpose.TRANSITION),
        "transition": (zero + 5, rows, zero, Purpose.TRANSITION),
        "round": (zero + 5, zero, rows, Purpose.TRANSITION),
        "purpose": (rows, zero, zero, Purpose.DECISION),
        "element": (rows, zero, zero, Purpose.TRANSITION),
    }[other]
    z = random.normal(*drawn, (4,))
    if other == "purpose":
        assert (
            correlation_p(z[:, 0], random.normal(rows, zero, zero, Purpose.TRANSITION, (4,))[:, 0])
            > 1e-3
        )
    elif other == "element":
        for a in range(4):
            for b in range(a):
                assert correlation_p(z[:, a], z[:, b]) > 1e-3
                assert correlation_p(z[:, a].square(), z[:, b].square()) > 1e-3
    else:
        assert correlation_p(z[:-1, 0], z[1:, 0]) > 1e-3


# --- what a number depends on --------------------------------------------------------------------


@BOTH
def test_row_does_not_depend_on_its_batch(draw: Any) -> None:
    seeds, transition, rounds = counters(40)
    together = draw(seeds, transition, rounds, Purpose.TRANSITION, (3, 5, 7))
    order = torch.randperm(40)
    shuffled = draw(seeds[order], transition[order], rounds[order], Purpose.TRANSITION, (3, 5, 7))
    assert torch.equal(shuffled, together[order])
    for r in range(40):
        alone = draw(seeds[r : r + 1], transition[r : r + 1], rounds[r : r + 1], 1, (3, 5, 7))
        assert torch.equal(alone[0], together[r])


@BOTH
def test_element_does_not_depend_on_the_size_of_its_row(draw: Any) -> None:
    wide = draw(3, 1, 2, Purpose.INITIAL, (1000,))
    for size in (1, 5, 64, 100):
        assert torch.equal(draw(3, 1, 2, Purpose.INITIAL, (size,)), wide[:, :size])


@BOTH
def test_every_word_of_the_counter_and_the_key_matters(draw: Any) -> None:
    base = (1, 2, 3, Purpose.TRANSITION)
    rows = [draw(*base, (8,))]
    for position, value in ((0, 2), (0, 1 + 2**40), (1, 3), (2, 4), (3, Purpose.DECISION)):
        changed = [*base]
        changed[position] = value
        rows.append(draw(*changed, (8,)))
    assert len(torch.unique(torch.cat(rows), dim=0)) == len(rows)


@BOTH
def test_result_does_not_depend_on_the_number_of_threads(draw: Any) -> None:
    single = draw(range(80), 1, 1, Purpose.TRANSITION, (4096,))
    torch.set_num_threads(2)
    try:
        several = draw(range(80), 1, 1, Purpose.TRANSITION, (4096,))
    finally:
        torch.set_num_threads(1)
    assert torch.equal(single, several)


def test_purposes_keep_their_values() -> None:
    assert {p.name: p.value for p in Purpose} == {
        "INITIAL": 0,
        "TRANSITION": 1,
        "DECISION": 2,
        "LABEL": 3,
    }


# --- arguments -----------------------------------------------------------------------------------


@BOTH
def test_shapes_and_types_of_arguments(draw: Any) -> None:
    expected = draw(
        torch.tensor([5, 5, 5]), torch.tensor([1, 2, 3]), torch.zeros(3).long(), 1, (2, 3)
    )
    assert expected.shape == (3, 2, 3)
    assert expected.dtype == torch.float32
    assert torch.equal(draw([5, 5, 5], [1, 2, 3], [0, 0, 0], Purpose.TRANSITION, (2, 3)), expected)
    assert torch.equal(draw(5, torch.tensor([1, 2, 3], dtype=torch.int32), 0, 1, (2, 3)), expected)
    assert draw(5, 1, 0, 1, ()).shape == (1,)
    assert draw([], 1, 0, 1, (4,)).shape == (0, 4)


def test_seeds_are_64_bit_keys() -> None:
    assert as_seeds(3).tolist() == [3]
    assert as_seeds([0, 2**63 - 1, 2**63, 2**64 - 1, -1]).tolist() == [
        0,
        2**63 - 1,
        -(2**63),
        -1,
        -1,
    ]
    drawn = random.normal([2**64 - 1, -1, 2**32 - 1], 0, 0, Purpose.TRANSITION, (4,))
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[2])


@pytest.mark.parametrize("seeds", [2**64, -(2**63) - 1, [0, 2**70]])
def test_seed_out_of_range(seeds: Any) -> None:
    with pytest.raises(ValueError, match=r"^seeds: expected values in -2\*\*63\.\.2\*\*64-1, got"):
        random.normal(seeds, 0, 0, Purpose.TRANSITION, (4,))


@pytest.mark.parametrize(
    "value", [-1, 2**32, [0, 2**40], torch.tensor([-1]), torch.tensor([2**32])]
)
@pytest.mark.parametrize("name", ["transition", "round"])
def test_counter_out_of_range(name: str, value: Any) -> None:
    arguments = {"seeds": 0, "transition": 0, "round": 0} | {name: value}
    with pytest.raises(ValueError, match=rf"^{name}: expected values in 0\.\.4294967295, got"):
        random.normal(**arguments, purpose=Purpose.TRANSITION, shape=(4,))


@pytest.mark.parametrize("value", [1.5, "1", [1.0], True, [True], torch.zeros(1), None])
@pytest.mark.parametrize("name", ["seeds", "transition", "round"])
def test_no_integers(name: str, value: Any) -> None:
    arguments = {"seeds": 0, "transition": 0, "round": 0} | {name: value}
    with pytest.raises(TypeError, match=f"^{name}: expected integers, got"):
        random.normal(**arguments, purpose=Purpose.TRANSITION, shape=(4,))


def test_rows_that_do_not_match() -> None:
    with pytest.raises(ValueError, match=r"^transition: expected shape \[2\], got \[3\]$"):
        random.normal([0, 1], [0, 1, 2], 0, Purpose.TRANSITION, (4,))
    with pytest.raises(ValueError, match=r"^seeds: expected shape \[R\], got \[1, 1\]$"):
        random.normal(torch.zeros(1, 1, dtype=torch.int64), 0, 0, Purpose.TRANSITION, (4,))
    with pytest.raises(ValueError, match=r"^round: expected shape \[R\], got \[\]$"):
        random.normal(0, 0, torch.tensor(0), Purpose.TRANSITION, (4,))


@pytest.mark.parametrize("shape", [(0,), (2, -1), (2.0,), (True,)])
def test_bad_shape(shape: Any) -> None:
    with pytest.raises(ValueError, match="^shape: expected positive integers, got"):
        random.normal(0, 0, 0, Purpose.TRANSITION, shape)


@pytest.mark.parametrize("purpose", [-1, 2**32])
def test_bad_purpose(purpose: int) -> None:
    with pytest.raises(ValueError, match=r"^purpose: expected a value in 0\.\.4294967295, got"):
        random.normal(0, 0, 0, purpose, (4,))


def test_ops_check_their_arguments() -> None:
    row = torch.arange(3)
    with pytest.raises(TypeError, match="^seeds: expected a tensor, got list$"):
        ops.philox_normal([1], row, row, 0, 4)
    with pytest.raises(TypeError, match="^round: expected int64, got int32$"):
        ops.philox_normal(row, row, row.int(), 0, 4)
    with pytest.raises(ValueError, match=r"^seeds: expected shape \[R\], got \[3, 1\]$"):
        ops.philox_uniform(row[:, None], row, row, 0, 4)
    with pytest.raises(ValueError, match="^size: expected at least 1, got 0$"):
        ops.philox_uniform(row, row, row, 0, 0)
    with pytest.raises(ValueError, match="^transition: expected a contiguous tensor"):
        ops.philox_uniform(row, torch.arange(6)[::2], row, 0, 4)
