"""The benchmark of deterministic samplers, on a teacher that is known."""

import pytest
import torch

from free import FrozenDrafter
from tests.networks import MixtureTeacher


def test_methods_are_compared_at_equal_rows(load) -> None:
    pytest.importorskip("diffusers")
    deterministic = load("deterministic")
    teacher = MixtureTeacher(16, spread=0.8)
    model = deterministic.Model("mixture", teacher, FrozenDrafter(), 1.5)
    reference, _ = deterministic.serial(model, 20, 4)
    rows = [
        deterministic.measure(model, method, 0.01, 20, 8, reference)
        for method in deterministic.AMOUNTS
    ]
    for row in rows:
        assert row["images"] == 4
        assert 1 < row["steps_a_round"] < 8
        assert 20 < row["psnr_worst"] <= row["psnr"] < 100
        assert 20 <= row["teacher_rows_an_image"] < 8 * 20
    assert [row["method"] for row in rows if "estimated" in row] == ["tolerance", "trained"]
    text = deterministic.table(rows)
    assert "mixture, 20 steps" in text
    assert all(f"| 8 | {method} | " in text for method in deterministic.AMOUNTS)


def test_decibels(load) -> None:
    deterministic = load("deterministic")
    reference = torch.zeros(2, 1, 2, 2)
    found = deterministic.closeness(
        reference + torch.tensor([0.2, 0.02])[:, None, None, None], reference
    )
    assert found["psnr_worst"] == pytest.approx(20.0, abs=0.01)
    assert found["psnr_mean"] == pytest.approx(30.0, abs=0.01)
    assert found["psnr"] == pytest.approx(22.97, abs=0.01)
