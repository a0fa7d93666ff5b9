"""Comparing recipes: equal budgets, places of a window, and what the table says."""

import argparse
import sys

import numpy as np
import pytest
import torch
from scipy.stats import norm

from free import DiT, FrozenDrafter, Schedule
from free.training.dataset.sets import ImageSet
from tests.networks import OneImage


class _Off(FrozenDrafter):
    """Wrong by a constant in x0."""

    def carry_from(self, teacher_output, rows):
        return super().carry_from(teacher_output, rows) + 1e-3


def test_acceptance_by_position(load) -> None:
    positions, schedule = load("positions"), Schedule.ddpm(14)
    arguments = (14, 4, 1.5, 1, 2)
    exact = positions.acceptance_by_position(OneImage(schedule), FrozenDrafter(), *arguments)
    assert exact == pytest.approx([1.0] * 3, abs=2e-3)
    found = positions.acceptance_by_position(OneImage(schedule), _Off(), *arguments)
    n = np.sqrt(1 - schedule.signal**2)
    for place in range(3):
        # Windows start at every third transition; all places have the same part of the run.
        at = np.array([k for k in range(1 + place, 13, 3) if k >= 3])
        error = 1e-3 * schedule.signal[at] / n[at] * 4
        delta = np.abs(schedule.b[at]) * error / schedule.sigma[at]
        assert found[place] == pytest.approx((2 * norm.cdf(-delta / 2)).mean(), abs=3e-3)


def test_budgets_are_equal(load, monkeypatch: pytest.MonkeyPatch) -> None:
    ablation, teacher = load("ablation"), DiT.from_pretrained("mnist")
    images = ImageSet(torch.zeros(4, 1, 28, 28), torch.arange(4), 10)
    monkeypatch.setattr(ablation, "embedded_set", lambda model: images)
    options = argparse.Namespace(steps=1000, batch=4)
    budget = 1000 * ablation.operations(teacher, ablation.VARIANTS["paper"], 4)
    for name in ("depth2", "delta-gate"):
        variant = ablation.VARIANTS[name]
        steps = ablation.steps_of(teacher, variant, options)
        spent = steps * ablation.operations(teacher, variant, 4)
        assert spent == pytest.approx(budget, rel=2e-3)
        assert steps < 1000


def test_the_table(load) -> None:
    ablation = load("ablation")

    def result(variant: str, seed: int, efficiency: float) -> dict:
        figures = {"parallel_efficiency": efficiency, "standard_error": 0.1}
        return {
            "variant": variant, "label": variant, "steps": 9, "rows": 8, "operations": 1,
            "seed": seed, "seconds": 2.0, "paper": figures, "recommended": figures,
            "acceptance_by_position": [0.9, 0.81],
        }  # fmt: skip

    results = [result("paper", 0, 3.0), result("paper", 1, 5.0), result("better", 0, 6.0)]
    paper, better = ablation.summarise(results)
    assert paper["paper"]["mean"] == 4.0
    assert paper["paper"]["error"] == pytest.approx(1.0)  # of the seeds
    assert better["paper"]["error"] == pytest.approx(0.1)  # of the images
    line = ablation.markdown([paper, better]).splitlines()[3]
    assert line == (
        "| better | 9 x 8 | 2 | 6.00 ± 0.10 | +50 % | 6.00 ± 0.10 | 90.0 % | 81.0 % | 10.0 % |"
    )


def test_an_unknown_variant(load, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    monkeypatch.setattr(sys, "argv", ["ablation.py", "--variants", "paper,soup"])
    with pytest.raises(SystemExit):
        load("ablation").main()
    assert "--variants must be of untrained, paper, " in capsys.readouterr().err
