"""``free fit-variance``, ``free train-variance``, and the options that use what they write."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from free import DiT, DiTConfig, Schedule
from free.cli.options import parse_schedule
from free.models.sigma import SigmaNet
from free.schedule.variance import VarianceFit
from free.training.dataset.sets import ImageSet
from tests.cli.commands import refuse, succeed
from tests.networks import randomized

CPU = torch.device("cpu")


def _sample(folder: Path, *arguments: object) -> list[object]:
    return ["sample", "--steps", 6, "--labels", "3", "--out", folder / "x.png", "--json",
            folder / "x.json", *arguments]  # fmt: skip


def test_a_fit_of_a_network_with_learned_variance(tmp_path: Path) -> None:
    config = DiTConfig(8, 4, 1, 16, 1, 2, num_classes=3, learn_sigma=True)
    randomized(DiT(config)).save_pretrained(tmp_path / "model")
    model = ["--model", tmp_path / "model"]
    text = succeed("fit-variance", *model, "--labels", "0-2", "--per-label", 2, "--steps", 9,
                   "--out", tmp_path / "fit.json")  # fmt: skip
    assert "over 8 steps" in text
    fit = VarianceFit.load(tmp_path / "fit.json")
    np.testing.assert_array_equal(fit.timesteps, Schedule.ddpm(9).timesteps[:-1])
    record = json.loads((tmp_path / "fit.json").read_text())
    assert record["labels"] == [0, 0, 1, 1, 2, 2]
    with Image.open(tmp_path / "fit.png") as picture:
        assert picture.width > 800
    succeed(*_sample(tmp_path, *model, "--labels", "0", "--variance", tmp_path / "fit.json"))
    assert json.loads((tmp_path / "x.json").read_text())["variance"].endswith("fit.json")


def test_the_embedded_teacher_has_no_learned_variance(tmp_path: Path) -> None:
    fit = ["fit-variance", "--out", tmp_path / "fit.json"]
    refuse("teacher must have a learned variance (learn_sigma) to be fitted", *fit, "--steps", 5)
    refuse("labels must be in 0..9 or 10 (the null class), got 11", *fit, "--labels", "11")
    assert not (tmp_path / "fit.json").exists()


def test_training_continues_and_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = ImageSet(torch.rand(20, 1, 28, 28) * 2 - 1, torch.arange(20) % 10, 10)
    monkeypatch.setattr(
        "free.training.dataset.sets.embedded_set", lambda model: data
    )  # reads for long
    command = ["train-variance", "--out", tmp_path / "sigma", "--steps", 3, "--batch-size", 4,
               "--sampling-steps", 20, "--width", 4]  # fmt: skip
    succeed(*command)
    first = load_file(tmp_path / "sigma" / "model.safetensors")
    record = json.loads((tmp_path / "sigma" / "config.json").read_text())
    assert record["training"]["sampling_steps"] == 20
    (tmp_path / "sigma" / "model.safetensors").unlink()
    succeed(*command)  # from its last checkpoint, which is its end
    again = load_file(tmp_path / "sigma" / "model.safetensors")
    assert all(torch.equal(first[name], again[name]) for name in first)
    refuse("folder must be empty or hold a run of the same settings", *command,
           "--learning-rate", 0.5)  # fmt: skip
    succeed(*_sample(tmp_path, "--variance", tmp_path / "sigma", "--compare"))


def test_options_make_schedules(tmp_path: Path) -> None:
    for options, expected in (
        (("posterior", 1.0, False), Schedule.ddpm(20)),
        (("upper", 1.0, False), Schedule.ddpm(20, variance="upper")),
        (("0.25", 1.0, False), Schedule.ddpm(20, variance=0.25)),
        (("posterior", 0.4, False), Schedule.ddpm(20, stochasticity=0.4)),
        (("posterior", 1.7, True), Schedule.sde("vp", 20, 1.7)),
    ):
        schedule = parse_schedule(20, *options, CPU)
        for name in ("timesteps", "a", "b", "sigma", "signal"):
            np.testing.assert_array_equal(getattr(schedule, name), getattr(expected, name))
    for law, eta, expected in (
        ("ddpm", None, Schedule.ddpm(20)),
        ("flow-sde", 0.4, Schedule.flow("flow-sde", 20, stochasticity=0.4, train_steps=1.0)),
        ("repa", None, Schedule.repa(20)),
    ):
        prediction = "epsilon" if law == "ddpm" else "velocity"
        schedule = parse_schedule(20, "posterior", eta, False, CPU, law=law, prediction=prediction)
        assert schedule.key() == expected.key()
    path = tmp_path / "scheduler_config.json"
    path.write_text('{"_class_name": "DDPMScheduler", "prediction_type": "v_prediction"}')
    for scheduler in (str(path), str(tmp_path)):
        found = parse_schedule(20, "posterior", None, False, CPU, scheduler=scheduler)
        config = {"prediction_type": "v_prediction"}
        assert found.key() == Schedule.from_scheduler(config, 20).key()
    SigmaNet(1, 4).save_pretrained(tmp_path)
    assert isinstance(parse_schedule(20, str(tmp_path), 1.0, False, CPU).mixture, SigmaNet)
