"""``free tune``: costs, promises, a sentence, and a record that stays with the drafter."""

import json
import shutil
from pathlib import Path

import pytest

from free import AutoWindow, Schedule, SpeculativeSampler
from free import load_pretrained as load
from tests.cli.commands import refuse, succeed


@pytest.fixture(autouse=True)
def _cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("FREE_CACHE", str(tmp_path / "cache"))


def _arguments(model: Path, *more: object) -> list[object]:
    return ["tune", "--model", model, "--steps", 12, "--images", 2, *more]


def test_it_says_whether_it_pays(digits: Path, tmp_path: Path) -> None:
    text = succeed(*_arguments(digits, "--batch-size", 2, "--json", tmp_path / "x.json"))
    for part in ("teacher rows of each image 1 2 4 8", "in calls of one row 1.00", "promises"):
        assert part in text
    assert ("FREE pays here" in text) != ("FREE does not pay here" in text)
    record = json.loads((tmp_path / "x.json").read_text())
    assert record["measured"]["speedup"] > 0
    assert record["predicted"]["1"]["rounds"] == 12
    assert set(record["predicted"]) == {"1", "2", "4", "8", "auto"}


def test_the_record_stays_with_the_drafter(digits, tmp_path, monkeypatch) -> None:
    """It is made under the guidance that the options name."""
    model = shutil.copytree(digits, tmp_path / "model")
    guidance = []

    class Spy(SpeculativeSampler):
        def __init__(self, *arguments: object, **options: object) -> None:
            super().__init__(*arguments, **options)
            guidance.append((self.guidance.scale, self.guidance.channels))

    monkeypatch.setattr("free.cli.tune.SpeculativeSampler", Spy)
    assert load(model)[1].acceptance == {}
    text = succeed(*_arguments(model, "--save", "--cfg", 2, "--cfg-channels", 1))
    assert "recorded in" in text
    assert set(guidance) == {(2.0, 1)}
    teacher, drafter = load(model)
    assert set(drafter.acceptance) == {"1", "2", "none"}
    assert drafter.sampling == load(digits)[1].sampling
    rule = AutoWindow()
    SpeculativeSampler(teacher, drafter, Schedule.ddpm(12), rule, sweeps="auto").sample([0])
    assert set(rule.basis.records) == {0, 1, 2}
    assert "its acceptance is on record" in succeed("info", model / "drafter")


def test_bad_steps_are_refused_before_anything_is_exported(monkeypatch) -> None:
    monkeypatch.setattr("free.cli.tune.put_on_engine", lambda *_: pytest.fail("exported"))
    refuse("steps must be an integer in 2..train_steps (1000), got 1", "tune", "--steps", 1)
