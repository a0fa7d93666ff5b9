"""Which image is what."""

from typing import Any

import numpy as np
import pytest

from free.generation.plan import Plan, make_plan
from tests.networks import MixtureTeacher

TEACHER = MixtureTeacher()


def _plan(num: int = 10, labels: Any = "random", seed: int = 0, batch_size: int = 4) -> Plan:
    return make_plan(TEACHER, num, labels, seed, batch_size)


def test_chunks_are_fixed_and_cover_everything() -> None:
    plan = _plan()
    assert len(plan) == 3
    assert [plan.span(j) for j in range(3)] == [slice(0, 4), slice(4, 8), slice(8, 10)]
    assert [plan.size(j) for j in range(3)] == [4, 4, 2]
    assert plan.images(np.array([True, False, True])) == 6
    assert len(_plan(8)) == 2


def test_an_image_is_the_same_in_a_longer_run_with_other_batches() -> None:
    short, long = _plan(7, batch_size=7), _plan(5000, batch_size=3)
    np.testing.assert_array_equal(short.labels, long.labels[:7])
    seeds = [seed for chunk in range(len(long)) for seed in long.seeds(chunk)]
    assert short.seeds(0) == seeds[:7]
    assert len(set(seeds)) == 5000


def test_neighbouring_seeds_share_no_noise() -> None:
    """Where image i had seed + i, runs 0 and 1 would share all images but one."""
    drawn = {seed: {s for c in range(25) for s in _plan(100, seed=seed).seeds(c)} for seed in
             range(20)}  # fmt: skip
    assert len(set().union(*drawn.values())) == 2000
    assert _plan(seed=-1).seeds(0) == _plan(seed=2**64 - 1).seeds(0)  # the same 64 bits


def test_seeds_wrap() -> None:
    assert Plan(np.zeros(3, np.int64), 2**64 - 2, 3).seeds(0) == [-2, -1, 0]
    assert Plan(np.zeros(2, np.int64), 2**63 - 1, 2).seeds(0) == [2**63 - 1, -(2**63)]


def test_labels() -> None:
    assert _plan(5, "balanced").labels.tolist() == [0, 1, 0, 1, 0]
    assert _plan(5, [1, 1, 0]).labels.tolist() == [1, 1, 0, 1, 1]
    assert _plan(2, [2, 0, 1]).labels.tolist() == [2, 0]  # 2 is the null class
    assert _plan(5, "random").labels.dtype == np.int64


def test_random_labels_are_uniform() -> None:
    class Teacher:
        num_classes = 1000

    labels = make_plan(Teacher(), 100_000, "random", 3, 100).labels
    counts = np.bincount(labels, minlength=1000)
    assert counts.shape == (1000,)
    # Chi-square of 999 degrees of freedom: 999 +- 45.
    assert abs(((counts - 100) ** 2 / 100).sum() - 999) < 4 * 45
    assert abs(np.corrcoef(labels[1:], labels[:-1])[0, 1]) < 4 / 100_000**0.5
    assert (labels != make_plan(Teacher(), 100_000, "random", 4, 100).labels).mean() > 0.99


def test_bad_input() -> None:
    for arguments, message in (
        ({"num": 0}, "num must be an integer >= 1, got 0"),
        ({"batch_size": 0}, "batch_size must be an integer >= 1, got 0"),
        ({"labels": "all"}, "labels must be 'random', 'balanced' or classes, got 'all'"),
        ({"labels": [0, 3]}, r"labels must be in 0..1 or 2 \(the null class\), got 3"),
        ({"seed": 2**64}, "seed must be an integer in"),
    ):
        with pytest.raises(ValueError, match=message):
            _plan(**arguments)
    with pytest.raises(ValueError, match="teacher must have num_classes for labels 'random'"):
        make_plan(lambda x, t, y: None, 3, "random", 0, 1)
