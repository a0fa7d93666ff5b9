"""``free tune``: costs, promises, a sentence, and a record that stays with the drafter."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from free import AutoWindow, DiT, DiTConfig, DrafterNet, Schedule, SpeculativeSampler
from free import load_pretrained as load
from free.cli import app
from tests.networks import randomized

CONFIG = DiTConfig(8, 4, 1, 16, 1, 2, num_classes=3, learn_sigma=False)


@pytest.fixture(autouse=True)
def _cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("FREE_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    randomized(DiT(CONFIG)).save_pretrained(tmp_path / "model" / "teacher")
    network = randomized(DrafterNet(CONFIG), 1)
    network.save_pretrained(tmp_path / "model" / "drafter", sampling={"window": 4, "sweeps": 1})
    return tmp_path / "model"


def _tune(*arguments: object) -> tuple[int, str]:
    result = CliRunner().invoke(
        app, ["tune", "--steps", "12", "--images", "2", *map(str, arguments)]
    )
    return result.exit_code, " ".join(result.output.split())


def test_it_says_whether_it_pays(bundle: Path, tmp_path: Path) -> None:
    code, text = _tune("--model", bundle, "--batch-size", 2, "--json", tmp_path / "x.json")
    assert code == 0, text
    for part in ("teacher rows of each image 1 2 4 8", "in calls of one row 1.00", "promises"):
        assert part in text
    assert ("FREE pays here" in text) != ("FREE does not pay here" in text)
    record = json.loads((tmp_path / "x.json").read_text())
    assert record["measured"]["speedup"] > 0
    assert record["predicted"]["1"]["rounds"] == 12
    assert set(record["predicted"]) == {"1", "2", "4", "8", "auto"}


def test_the_record_stays_with_the_drafter(bundle: Path) -> None:
    assert load(bundle)[1].acceptance == {}
    code, text = _tune("--model", bundle, "--save")
    assert code == 0, text
    assert "recorded in" in text
    teacher, drafter = load(bundle)
    assert set(drafter.acceptance) == {"1", "2"}
    assert drafter.sampling == {"window": 4, "sweeps": 1}
    rule = AutoWindow()
    SpeculativeSampler(teacher, drafter, Schedule.ddpm(12), rule, sweeps="auto").sample([0])
    assert set(rule.basis.records) == {1, 2}
    text = CliRunner().invoke(app, ["info", str(bundle / "drafter")]).output
    assert "its acceptance is on record" in " ".join(text.split())


def test_nothing_to_save_the_record_with(bundle: Path) -> None:
    code, text = _tune("--model", bundle, "--drafter", "frozen", "--save")
    assert code == 2
    assert "--save needs a trained drafter in a folder, got 'frozen'" in text


def test_sampling_with_an_automatic_window(bundle: Path, tmp_path: Path) -> None:
    arguments = ["sample", "--model", str(bundle), "--steps", "8", "--labels", "0-2"]
    arguments += ["--batch-size", "3", "--out", str(tmp_path / "x.png")]
    result = CliRunner().invoke(app, [*arguments, "--window", "auto"])
    assert result.exit_code == 0, result.output
    assert "window auto" in result.output
    for wrong in ("wide", "0", "-1", "1.5"):
        result = CliRunner().invoke(app, [*arguments, "--window", wrong])
        assert result.exit_code == 2
        assert "--window must be an integer >= 1 or auto" in " ".join(result.output.split())


def test_files_that_can_be_made_again_need_fixed_windows(bundle: Path, tmp_path: Path) -> None:
    arguments = ["generate", "--model", str(bundle), "--num", "2", "--window", "auto"]
    result = CliRunner().invoke(app, [*arguments, "--out", str(tmp_path / "x.npz")])
    assert result.exit_code == 2
    assert "--window must be a number here, got auto" in " ".join(result.output.split())


def test_the_record_is_made_under_the_guidance_asked_for(
    bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []

    class Seen(SpeculativeSampler):
        def __init__(self, *arguments: object, **options: object) -> None:
            super().__init__(*arguments, **options)
            seen.append(self.guidance)

    monkeypatch.setattr("free.cli.tune.SpeculativeSampler", Seen)
    code, text = _tune("--model", bundle, "--save", "--cfg", 2, "--cfg-channels", 1)
    assert code == 0, text
    assert {(guidance.scale, guidance.channels) for guidance in seen} == {(2.0, 1)}


def test_bad_steps_are_refused_before_anything_is_exported() -> None:
    code, text = _tune("--steps", 1)
    assert code == 2
    assert "steps must be in 2..train_steps (1000), got 1" in text
    assert "exporting" not in text
