"""Randomness of training: by seed, step and row, however a batch is split."""

import pytest
import torch

from free.training.randomness import RowRandom


def _draws(seed: int, step: int, rows: range) -> list[torch.Tensor]:
    random = RowRandom(seed, step, rows)
    return [random.normal((3,)), random.uniform(), random.integers(1000), random.normal((3,))]


def test_a_row_draws_the_same_whoever_shares_its_batch() -> None:
    whole = _draws(5, 7, range(6))
    parts = [_draws(5, 7, range(2)), _draws(5, 7, range(2, 6))]
    for together, *split in zip(whole, *parts, strict=True):
        torch.testing.assert_close(torch.cat(split), together, rtol=0, atol=0)


def test_rows_steps_seeds_and_draws_are_independent() -> None:
    base = _draws(5, 7, range(4000))
    others = [
        _draws(6, 7, range(4000))[0],
        _draws(5, 8, range(4000))[0],
        base[3],
        base[0].roll(1, 0),
    ]
    for other in others:
        correlation = (base[0] * other).mean()
        assert abs(correlation) < 5 / 12000**0.5
    assert base[2].min() >= 0
    assert base[2].max() == 999
    assert base[2].float().mean() == pytest.approx(499.5, abs=5 * 289 / 4000**0.5)


@pytest.mark.parametrize("end", [0, 2**24 + 1])
def test_integers_are_checked(end: int) -> None:
    with pytest.raises(ValueError, match=f"end must be in 1..16777216, got {end}"):
        RowRandom(0, 0, range(1)).integers(end)
