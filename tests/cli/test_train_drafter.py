"""``free train-drafter``: from a folder of images to a drafter that drafts."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from free import DiT, DiTConfig, load_pretrained
from free.cli.training import parse_duration, tell_of_first_weights
from free.training import journal, losses
from free.training.config import TrainConfig
from free.training.log import read_log
from free.training.losses import drafter_loss
from free.training.parallel import Ranks
from free.training.precision import choose_precision
from tests.cli import commands
from tests.networks import randomized

CONFIG = DiTConfig(8, 4, 3, 16, 1, 2, num_classes=2, learn_sigma=False)


@pytest.fixture(autouse=True)
def _no_picture(monkeypatch: pytest.MonkeyPatch) -> None:
    """Drawing the losses takes longer than a run here."""
    monkeypatch.setattr(journal, "draw_losses", lambda folder: False)


@pytest.fixture
def work(tmp_path: Path) -> Path:
    """A teacher, and eight images of two classes, one of them damaged."""
    randomized(DiT(CONFIG)).save_pretrained(tmp_path / "teacher")
    random = np.random.default_rng(0)
    for at in range(8):
        path = tmp_path / "images" / f"class{at % 2}" / f"{at}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(random.integers(0, 256, (9, 10, 3), dtype=np.uint8)).save(path)
    path.write_bytes(path.read_bytes()[:50])
    return tmp_path


def _arguments(work: Path, *more: object) -> list[str]:
    fixed = ["train-drafter", "--model", work / "teacher", "--data", work / "images", "--out",
             work / "out", "--subset", 1, "--batch-size", 4, "--sampling-steps", 8,
             "--device", "cpu", "--log-every", 1, "--recipe", "paper"]  # fmt: skip
    return [str(one) for one in (*fixed, *more)]


def _train(work: Path, *more: object) -> str:
    return commands.succeed(*_arguments(work, *more))


def _refuse(message: str, work: Path, *more: object) -> None:
    commands.refuse(message, *_arguments(work, *more))


def test_a_drafter_of_one_s_own(work: Path) -> None:
    more = ("--steps", "3epochs", "--evaluate-every", "1epochs", "--evaluate-images", 2,
            "--evaluate-window", 3, "--evaluate-recycling", "--json", work / "x.json",
            "--no-tensorboard")  # fmt: skip
    (work / "images" / "class0" / "sub").mkdir()
    (work / "images" / "class0" / "sub" / "8.png").write_bytes(b"")
    text = _train(work, *more)
    assert "data: 1 file is left out, such as 'class0/sub/8.png': 1 of .png" in text
    run = work / "out" / "training" / "drafter"
    assert [line["epoch"] for line in read_log(run)] == [0.5, 1.0, 1.5, 2.0, 2.5, 3.0]
    for name in ("evaluations.csv", "best/model.safetensors"):
        assert (run / name).exists()
    config = json.loads((run / "config.json").read_text())
    assert config["skipped"] == 1
    assert json.loads((run / "skipped.json").read_text())[0]["file"].endswith("7.png")
    assert config["data"]["source"] == "folder"
    evaluations = json.loads((run / "evaluations.json").read_text())
    assert [one["step"] for one in evaluations] == [2, 4, 6]
    assert all(one["recommended_efficiency"] >= 1 for one in evaluations)
    best = max(evaluations, key=lambda one: one["parallel_efficiency"])
    assert f"the best of the run: step {best['step']}, parallel efficiency" in text
    record = json.loads((work / "x.json").read_text())
    assert record["best"]["step"] == best["step"]
    _, drafter = load_pretrained(work / "teacher", work / "out" / "drafter")
    assert drafter.network.config == CONFIG
    assert "averaged weights, which are the result, are still 100 % the first weights" in text
    assert drafter.sampling == {"window": 16, "sweeps": 1, "recycle": "response"}
    tune = f"free tune --model {work / 'teacher'} --drafter {work / 'out' / 'drafter'} --save"
    assert text.endswith(f"next: {tune}")

    first = (work / "out" / "drafter" / "model.safetensors").read_bytes()
    text = _train(work, *more, "--resume", "--keep", "last")  # nothing is left to be done
    assert "best" not in text
    assert len(read_log(run)) == 6
    last = (work / "out" / "drafter" / "model.safetensors").read_bytes()
    assert (first == last) == (best["step"] == 6)


def test_a_checkpoint_of_another_teacher_or_recipe(work: Path) -> None:
    _train(work, "--steps", 2)
    more = ("--steps", 2, "--feature-weight", 0.25, "--seed", 3)
    for message in ("of the same settings, got", "feature_weight 0.5 (now 0.25)"):
        _refuse(message, work, *more)
    randomized(DiT(CONFIG), 5).save_pretrained(work / "teacher")
    _refuse("state.pt with teacher '", work, "--steps", 2)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--resume"], "--resume needs a checkpoint to go on from, got none in"),
        (["--keep", "worst"], "--keep must be best or last, got 'worst'"),
        (["--steps", "soon"], "--steps must look like 2000 (batches) or 30epochs, got 'soon'"),
        (["--evaluate-every", 0], "--evaluate-every must look like 2000 (batches) or 30epochs"),
        (["--batch-size", 0, "--steps", "1epochs"], "--batch-size must be at least 1, got 0"),
        (["--evaluate-every", 1, "--evaluate-cfg", "nan"], "cfg_scale must be finite and >= 0"),
        (["--image-size", 16], "image_size and vae must give the teacher's samples"),
    ],
)
def test_bad_input_is_one_line(work: Path, more: list[object], message: str) -> None:
    _refuse(message, work, *more)
    assert not (work / "out" / "drafter").exists()


@pytest.mark.parametrize("name", ["auto", "bf16"])
def test_the_precision(work: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """The teacher keeps its weights. What suits the machine is taken by default, and told."""
    kinds = []

    def spy(network, *arguments, teacher, recipe):
        kinds.extend({weight.dtype for weight in teacher.parameters()})
        return drafter_loss(network, *arguments, teacher=teacher, recipe=recipe)

    monkeypatch.setattr(losses, "drafter_loss", spy)
    options = [] if name == "auto" else ["--precision", name]
    text = _train(work, "--steps", 2, "--no-tensorboard", *options)
    assert kinds == [torch.float32] * 2
    expected = choose_precision(name, Ranks())
    assert (f"precision {expected.name}: {expected.reason}" in text) == (name == "auto")
    config = json.loads((work / "out/training/drafter/config.json").read_text())
    assert config["precision"] == expected.name


def test_an_average_of_the_first_weights_is_told(capsys) -> None:
    """By the first process; with the advice less than a hundredth is left."""
    for steps, decay, advice in (
        (3, 0.9999, "are still 100 % the first weights: --ema-decay 0 leaves"),
        (3, 0.36, None),
        (2000, 0.9999, "--ema-decay 0.9975 leaves"),
        (29_000, 0.9999, "--ema-decay 0.99983 leaves"),
        (30_000, 0.9999, None),
    ):
        config = TrainConfig(steps, ema_decay=decay)
        tell_of_first_weights(config, Ranks(1, 2))
        assert not capsys.readouterr().err
        tell_of_first_weights(config, Ranks())
        shown = capsys.readouterr().err
        assert (advice in shown) if advice else not shown
        if match := re.search(r"--ema-decay (\S+) leaves", shown):
            assert float(match[1]) ** steps < 0.01


def test_durations() -> None:
    for text, steps in (("2000", 2000), ("30epochs", 300), ("0.25 epoch", 3), ("1e", 10)):
        assert parse_duration(text, 10, 100, "--steps") == steps
    for text in ("", "1.5", "-3", "0epochs", "3 days"):
        with pytest.raises(ValueError, match="--steps must look like 2000 "):
            parse_duration(text, 10, 100, "--steps")
