"""The commands as a user runs them."""

import json
from dataclasses import asdict
from pathlib import Path

import pytest
from PIL import Image
from typer.testing import CliRunner

from free.cli import app
from free.cli.options import parse_labels
from free.training.recipe import RECIPES

RUN = CliRunner()


def test_sample_writes_picture_and_report(tmp_path: Path) -> None:
    out, report = tmp_path / "a" / "digits.png", tmp_path / "report.json"
    result = RUN.invoke(
        app,
        ["sample", "--labels", "3,5", "--per-label", "2", "--steps", "20", "--window", "4",
         "--batch-size", "3", "--out", str(out), "--json", str(report), "--compare"],
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    assert "teacher rounds" in result.output
    assert "times fewer rounds" in result.output
    with Image.open(out) as picture:
        assert picture.size[0] > 4 * 3 * 28
    record = json.loads(report.read_text())
    assert record["labels"] == [3, 3, 5, 5]
    assert record["plain"]["rounds"] == 2 * 20
    assert record["free"]["seeds"] == [0, 1, 2, 3]
    assert record["free"]["rounds"] < 40


def test_ways_of_drafting(tmp_path: Path) -> None:
    """The model's own, the paper's, and single settings."""
    out, report = tmp_path / "digits.png", tmp_path / "report.json"
    for options, expected, words in (
        ([], {"window": 16, "sweeps": 1, "recycle": "response"}, "1 sweep, recycled: response"),
        (["--paper"], {"window": 8, "sweeps": None, "recycle": False}, "autoregression, nothing"),
        (["--paper", "--window", "4"], {"window": 4, "sweeps": None, "recycle": False}, "window 4"),
        (["--paper", "--window", "auto"], {"window": "auto", "sweeps": None}, "autoregression"),
        (["--sweeps", "2", "--recycle", "best"],
         {"window": 16, "sweeps": 2, "recycle": True}, "2 sweeps, recycled: best so far"),
        (["--recycle", "off", "--sweeps", "0", "--drafter", "frozen"],
         {"window": 16, "sweeps": None, "recycle": False}, "autoregression"),
        (["--verifier", "block"],
         {"window": 16, "sweeps": 1, "recycle": False, "verifier": "block"},
         "nothing recycled, verified as a block"),
    ):  # fmt: skip
        common = ["--labels", "3", "--steps", "12", "--out", str(out), "--json", str(report)]
        result = RUN.invoke(app, ["sample", *common, *options])
        assert result.exit_code == 0, result.output
        assert words in " ".join(result.output.split())
        record = json.loads(report.read_text())
        assert {name: record[name] for name in expected} == expected


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--paper", "--sweeps", "1"], "--paper must come without --sweeps, --recycle and"),
        (["--paper", "--verifier", "block"], "--paper must come without --sweeps, --recycle and"),
        (["--verifier", "hope"], "verifier: expected one of 'reflection', 'block', got 'hope'"),
        (
            ["--verifier", "block", "--recycle", "reuse"],
            "recycle must be False with verifier 'block'",
        ),
        (
            ["--recycle", "all"],
            "--recycle must be one of response, control_variate, reuse, drafter",
        ),
        (["--drafter", "none"], "drafter must be a checkpoint's file or folder"),
        (["--labels", "11"], "labels must be in 0..9 or 10 (the null class), got 11"),
        (["--labels", "x"], "labels must look like 0-9"),
        (["--steps", "1"], "steps must be in 2..train_steps"),
        (["--window", "0"], "window must be an integer >= 1"),
        (["--model", "nowhere"], "model must be a checkpoint's file or folder"),
        (["--device", "tpu"], "--device must be one that this machine has, got 'tpu'"),
        (["--out", "digits"], "--out must end like a picture"),
        (["--cfg", "-1"], "cfg_scale must be finite and >= 0"),
    ],
)
def test_bad_options_are_one_line_and_exit_2(
    tmp_path: Path, options: list[str], message: str
) -> None:
    result = RUN.invoke(app, ["sample", "--out", str(tmp_path / "x.png"), *options])
    assert result.exit_code == 2
    assert message in result.output
    assert "Traceback" not in result.output


@pytest.mark.parametrize("option", ["--out", "--json"])
def test_unwritable_paths_are_found_before_sampling(
    tmp_path: Path, option: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "free.cli.sample.load_models", lambda *_: pytest.fail("work was done first")
    )
    blocker = tmp_path / "file"
    blocker.write_text("")
    result = RUN.invoke(app, ["sample", option, str(blocker / "x.png")])
    assert result.exit_code == 2
    assert f"{option} must be a file that can be written" in result.output


def test_info() -> None:
    result = RUN.invoke(app, ["info", "--json"])
    record = json.loads(result.output)
    assert set(record["models"]) == {"mnist"}
    assert record["extension"]["compiler"]
    assert "free-dit" in RUN.invoke(app, ["info"]).output


@pytest.mark.parametrize(
    "command", ["sample", "generate", "info", "train-teacher", "train-drafter"]
)
def test_help_has_an_example(command: str) -> None:
    result = RUN.invoke(app, [command, "--help"])
    assert result.exit_code == 0
    assert f"free {command}" in result.output


def test_train_commands_make_a_bundle_that_samples(tmp_path: Path) -> None:
    bundle = str(tmp_path / "run")
    teacher = ["train-teacher", "--out", bundle, "--steps", "3", "--batch-size", "4",
               "--hidden", "16", "--depth", "1", "--heads", "2", "--precision", "fp32"]  # fmt: skip
    drafter = ["train-drafter", "--out", bundle, "--steps", "3", "--batch-size", "4",
               "--objective", "delta", "--rollout", "2"]  # fmt: skip
    for command in (teacher, drafter, drafter):  # a finished run may be asked for again
        result = RUN.invoke(app, command)
        assert result.exit_code == 0, result.output
    for other in (["--rollout", "3"], ["--feature-weight", "9"]):
        result = RUN.invoke(app, [*drafter, *other])
        assert result.exit_code == 2
        assert "a run of the same settings" in result.output
    result = RUN.invoke(app, [*drafter, "--sampling-steps", "3", "--rollout", "2"])
    assert result.exit_code == 2
    config = json.loads((tmp_path / "run/drafter/config.json").read_text())
    assert config["training"]["objective"] == "delta"
    out = str(tmp_path / "x.png")
    result = RUN.invoke(
        app, ["sample", "--model", bundle, "--labels", "1", "--steps", "5", "--out", out]
    )
    assert result.exit_code == 0, result.output


def test_recipes_of_a_drafter(tmp_path: Path) -> None:
    bundle = str(tmp_path / "run")
    teacher = ["train-teacher", "--out", bundle, "--steps", "1", "--batch-size", "2",
               "--hidden", "16", "--depth", "2", "--heads", "2", "--precision", "fp32"]  # fmt: skip
    assert RUN.invoke(app, teacher).exit_code == 0
    drafter = ["train-drafter", "--out", bundle, "--steps", "1", "--batch-size", "2"]
    options = ["--recipe", "paper", "--fed", "sweeps", "--rollout", "3", "--sweeps", "2",
               "--depth", "2", "--guidance", "1.5", "--times", "rejections", "--stride", "unit",
               "--smooth-weight", "0.01", "--gate"]  # fmt: skip
    result = RUN.invoke(app, [*drafter, *options])
    assert result.exit_code == 0, result.output
    config = json.loads((tmp_path / "run/drafter/config.json").read_text())
    assert (config["depth"], config["gate"]) == (2, True)
    changed = {"fed": "sweeps", "rollout": 3, "sweeps": 2, "depth": 2, "guidance": 1.5,
               "times": "rejections", "stride": "unit", "smooth_weight": 0.01,
               "gate": True}  # fmt: skip
    assert config["training"].items() >= {**asdict(RECIPES["paper"]), **changed}.items()
    for wrong, message in (
        (["--recipe", "soup"], "recipe must be one of paper, free, got 'soup'"),
        (["--fed", "x"], "fed must be 'teacher', 'own' or 'sweeps', got 'x'"),
        (["--depth", "3"], "depth must be an integer in 1..2"),
    ):
        result = RUN.invoke(app, [*drafter, *wrong])
        assert result.exit_code == 2
        assert message in " ".join(result.output.replace("│", " ").split())


def test_train_drafter_without_a_teacher(tmp_path: Path) -> None:
    result = RUN.invoke(app, ["train-drafter", "--out", str(tmp_path)])
    assert result.exit_code == 2
    assert "teacher', which does not exist" in result.output


def test_labels() -> None:
    assert parse_labels("0-2, 7") == [0, 1, 2, 7]
    for text in ("", "2-1", "a", "1;2", "-1"):
        with pytest.raises(ValueError, match="labels must look like"):
            parse_labels(text)
