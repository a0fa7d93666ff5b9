"""Comparing recipes: equal budgets, places of a window, and what the table says."""

import argparse
import importlib
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from scipy.stats import norm
from torch import Tensor

from free import DiT, FrozenDrafter, Schedule, TeacherOutput
from free.schedule.table import eps_from_image
from free.training.dataset.sets import ImageSet

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


@pytest.fixture
def load(monkeypatch: pytest.MonkeyPatch):
    """A benchmark as a module; they import each other as scripts do."""
    monkeypatch.syspath_prepend(BENCHMARKS)

    def imported(name: str) -> ModuleType:
        monkeypatch.delitem(sys.modules, name, raising=False)
        return importlib.import_module(name)

    return imported


class _OneImage:
    """Predicts the same image everywhere."""

    sample_shape, num_classes, null_label = (1, 4, 4), 3, 3

    def __init__(self, schedule: Schedule) -> None:
        self.signal = torch.zeros(1000)
        self.signal[torch.tensor(schedule.timesteps)] = torch.tensor(schedule.signal).float()

    def __call__(self, x: Tensor, t: Tensor, y: Tensor) -> TeacherOutput:
        return TeacherOutput(eps_from_image(x, torch.full_like(x, 0.3), self.signal[t]))


class _Off(FrozenDrafter):
    """Wrong by a constant in x0."""

    def carry_from(self, teacher_output, rows):
        return super().carry_from(teacher_output, rows) + 1e-3


def test_acceptance_by_position(load) -> None:
    positions, schedule = load("positions"), Schedule.ddpm(14)
    arguments = (14, 4, 1.5, 1, 2)
    exact = positions.acceptance_by_position(_OneImage(schedule), FrozenDrafter(), *arguments)
    assert exact == pytest.approx([1.0] * 3, abs=2e-3)
    found = positions.acceptance_by_position(_OneImage(schedule), _Off(), *arguments)
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
    monkeypatch.setattr(ablation, "mnist_set", lambda: images)
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


def test_the_curve(load, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    header = "step,epoch,noise,feature,smooth"
    (tmp_path / "log.csv").write_text(f"{header}\n10,1,.5,.2,.1\n20,2,.4,.1,.1\n")
    table = "step,epoch,parallel_efficiency,acceptance\n10,1,1.5,.5\n20,2,2.25,.625\n"
    (tmp_path / "evaluations.csv").write_text(table)
    picture, page = tmp_path / "curve.png", tmp_path / "curve.md"
    arguments = [str(tmp_path), "--labels", "ours", "--markdown", str(page), "--plot", str(picture)]
    monkeypatch.setattr(sys, "argv", ["training_curve.py", *arguments])
    load("training_curve").main()
    assert page.read_text().splitlines()[2:] == [
        "| ours | 1 | 1.50 | 0.500 |",
        "| ours | 2 | 2.25 | 0.625 |",
    ]
    assert picture.read_bytes().startswith(b"\x89PNG")
    (tmp_path / "log.csv").unlink()
    with pytest.raises(SystemExit):
        load("training_curve").main()
    assert "run must be a folder with log.csv" in capsys.readouterr().err
