"""``free train-teacher`` and ``free train-drafter``, one after the other."""

import json
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch

from free import DiT
from free.training.recipe import FORMER_FIELDS, RECIPES
from tests.cli.commands import refuse, succeed
from tests.pipelines import tiny_vae
from tests.training.dataset.folders import class_folders


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


def test_a_teacher_of_a_folder_is_sampled_by_the_names_of_its_classes(tmp_path: Path) -> None:
    folder, out = class_folders(tmp_path / "images", classes=3, each=4), tmp_path / "run"
    command = ["train-teacher", "--data", folder, "--out", out, "--image-size", 8, "--upscale",
               "--hidden", 16, "--depth", 1, "--heads", 2, "--batch-size", 4, "--precision",
               "fp32", "--no-tensorboard", "--learn-sigma"]  # fmt: skip
    text = succeed(*command, "--steps", "1epochs")
    assert f"next: free sample --model {out}" in text
    config = json.loads((out / "teacher" / "config.json").read_text())
    assert config["training"]["data"]["classes"] == ["c0", "c1", "c2"]
    assert config["training"]["steps"] == 3
    assert (
        config["architecture"] | {"learn_sigma": True, "channels": 3, "patch_size": 4}
        == (config["architecture"])
    )
    log = (out / "training" / "teacher" / "log.csv").read_text()
    assert "bound" in log
    sample = ["sample", "--model", out, "--steps", 4, "--out", tmp_path / "x.png"]
    succeed(*sample, "--labels", "c2,0")
    refuse("did you mean 'c2'?", *sample, "--labels", "c22")
    refuse("--channels must come without --vae", *command, "--vae", _vae(tmp_path),
           "--channels", 3)  # fmt: skip
    refuse("--image-size must be a multiple of 8, the VAE's factor, got 9", *command[:6], 9,
           *command[7:], "--vae", _vae(tmp_path))  # fmt: skip
    refuse("image_size must be a multiple of patch_size", *command[:6], 9, *command[7:])
    refuse("mnist, emoji or a folder that is there", "train-teacher", "--data",
           tmp_path / "none", "--out", out)  # fmt: skip


def _vae(tmp_path: Path) -> Path:
    tiny_vae().save_pretrained(tmp_path / "vae")
    return tmp_path / "vae"


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
