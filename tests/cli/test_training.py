"""``free train-teacher`` and ``free train-drafter``, one after the other."""

import json
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch

from free import DiT
from free.training.recipe import FORMER_FIELDS, RECIPES
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
    drafter = _drafter(teacher, "--objective", "delta", "--depth", 2)
    for _ in range(2):  # a finished run may be asked for again
        succeed(*drafter)
    refuse("a run of the same settings", *drafter, "--depth", 1)
    refuse("sampling_steps must be at least 3, got 2", *drafter, "--sampling-steps", 2)
    config = json.loads((teacher / "drafter" / "config.json").read_text())
    assert config["training"]["objective"] == "delta"
    succeed("sample", "--model", teacher, "--labels", 1, "--steps", 5, "--out", tmp_path / "x.png")


def test_a_start_of_another_shape_is_refused(teacher: Path, tmp_path: Path) -> None:
    start = DiT.from_pretrained(teacher)
    DiT(replace(start.config, block_embedders=True)).save_pretrained(tmp_path / "start")
    refuse("--init must be of the same shape, got embedders in each block, not one for all",
           "train-teacher", "--out", tmp_path, "--init", tmp_path / "start", "--hidden", 16,
           "--depth", 2, "--heads", 2, "--precision", "fp32")  # fmt: skip


def test_recipes_of_a_drafter(teacher: Path, tmp_path: Path) -> None:
    drafter = _drafter(tmp_path, "--model", teacher)
    succeed(*drafter, "--recipe", "paper", "--depth", 2, "--smooth-weight", 0.01, "--gate")
    config = json.loads((tmp_path / "drafter" / "config.json").read_text())
    assert (config["depth"], config["gate"]) == (2, True)
    changes = {"depth": 2, "smooth_weight": 0.01, "gate": True}
    assert config["training"].items() >= {**asdict(RECIPES["paper"]), **changes}.items()
    refuse("objective must be 'mse' or 'delta', got 'x'", *drafter, "--objective", "x")
    refuse("depth must be an integer in 1..2", *drafter, "--depth", 3)
    refuse("No such option: --rollout", *drafter, "--rollout", 2)


def test_a_run_of_a_former_version_goes_on(teacher: Path, tmp_path: Path) -> None:
    """Its record has fields that are gone: where they ask for what is done now."""
    drafter, path = _drafter(tmp_path, "--model", teacher), tmp_path / "training/drafter/state.pt"
    succeed(*drafter)
    state = torch.load(path, weights_only=True)
    torch.save({**state, "settings": {**FORMER_FIELDS, **state["settings"]}}, path)
    succeed(*drafter, "--steps", 2)
    assert torch.load(path, weights_only=True)["step"] == 2
    torch.save({**state, "settings": {**FORMER_FIELDS, **state["settings"], "rollout": 3}}, path)
    refuse("with rollout 3 (now 1)", *drafter, "--steps", 2)


def test_a_drafter_needs_a_teacher(tmp_path: Path) -> None:
    refuse("teacher', which does not exist", "train-drafter", "--out", tmp_path)
