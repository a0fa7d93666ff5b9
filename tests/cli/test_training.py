"""``free train-teacher`` and ``free train-drafter``, one after the other."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import pytest

from free.training.recipe import RECIPES
from tests.cli.commands import refuse, succeed


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle with a teacher."""
    bundle = tmp_path_factory.mktemp("run")
    succeed("train-teacher", "--out", bundle, "--steps", 1, "--batch-size", 2, "--hidden", 16,
            "--depth", 2, "--heads", 2, "--precision", "fp32", "--no-tensorboard")  # fmt: skip
    return bundle


def _drafter(bundle: Path, *more: object) -> list[object]:
    return ["train-drafter", "--out", bundle, "--steps", 1, "--batch-size", 2, "--precision",
            "fp32", "--no-tensorboard", *more]  # fmt: skip


def test_train_commands_make_a_bundle_that_samples(teacher: Path, tmp_path: Path) -> None:
    drafter = _drafter(teacher, "--objective", "delta", "--rollout", 2)
    for _ in range(2):  # a finished run may be asked for again
        succeed(*drafter)
    refuse("a run of the same settings", *drafter, "--rollout", 3)
    refuse("a run of the same settings", *drafter, "--feature-weight", 9)
    refuse("rollout must be in 1..1 for a schedule of 3 steps", *drafter, "--sampling-steps", 3)
    config = json.loads((teacher / "drafter" / "config.json").read_text())
    assert config["training"]["objective"] == "delta"
    succeed("sample", "--model", teacher, "--labels", 1, "--steps", 5, "--out", tmp_path / "x.png")


def test_recipes_of_a_drafter(teacher: Path, tmp_path: Path) -> None:
    drafter = _drafter(tmp_path, "--model", teacher)
    succeed(*drafter, "--recipe", "paper", "--fed", "sweeps", "--rollout", 3, "--sweeps", 2,
            "--depth", 2, "--guidance", 1.5, "--times", "rejections", "--stride", "unit",
            "--smooth-weight", 0.01, "--gate")  # fmt: skip
    config = json.loads((tmp_path / "drafter" / "config.json").read_text())
    assert (config["depth"], config["gate"]) == (2, True)
    changes = {"fed": "sweeps", "rollout": 3, "sweeps": 2, "depth": 2, "guidance": 1.5,
               "times": "rejections", "stride": "unit", "smooth_weight": 0.01,
               "gate": True}  # fmt: skip
    assert config["training"].items() >= {**asdict(RECIPES["paper"]), **changes}.items()
    refuse("recipe must be one of paper, free, got 'soup'", *drafter, "--recipe", "soup")
    refuse("fed must be 'teacher', 'own' or 'sweeps', got 'x'", *drafter, "--fed", "x")
    refuse("depth must be an integer in 1..2", *drafter, "--depth", 3)


def test_a_drafter_needs_a_teacher(tmp_path: Path) -> None:
    refuse("teacher', which does not exist", "train-drafter", "--out", tmp_path)
