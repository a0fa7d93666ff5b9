"""Measured costs: when they are measured, kept and measured again."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from free import (
    AutoWindow,
    DiT,
    DiTConfig,
    DrafterNet,
    FeatureDrafter,
    Schedule,
    SpeculativeSampler,
    TeacherOutput,
)
from free.engines.networks import EngineTeacher
from free.window.costs import RoundCosts
from free.window.measure import fingerprint
from tests.networks import CallableDrafter, MixtureTeacher, randomized
from tests.window.play import DRAFTER, SCHEDULE, TEACHER, begun

CONFIG = DiTConfig(8, 4, 1, 16, 1, 2, num_classes=3, learn_sigma=False)


@pytest.fixture(autouse=True)
def cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setenv("FREE_CACHE", str(tmp_path))
    return tmp_path / "costs"


def sampled(rule: AutoWindow, labels: tuple[int, ...] = (0,), **options: Any) -> Any:
    """Draw with networks whose costs may be kept."""
    teacher = randomized(DiT(CONFIG))
    drafter = FeatureDrafter(randomized(DrafterNet(CONFIG), 1), teacher)
    return SpeculativeSampler(teacher, drafter, SCHEDULE, rule, **options).sample(labels)


@pytest.mark.parametrize(
    ("sweeps", "verifier"), [(None, "reflection"), (1, "block"), ("auto", "reflection")]
)
def test_measured_once_and_kept(sweeps: Any, verifier: str, cache: Path) -> None:
    rule, again = AutoWindow(6), AutoWindow(6)
    options = {"cfg_scale": 1.5, "sweeps": sweeps, "verifier": verifier}
    samples, report = sampled(rule, (0, 1, 2), **options)
    assert samples.isfinite().all()
    # A transition is an accepted draft, or the one that each round makes besides.
    assert report.accepted + sum(report.rounds_by_sample) == 3 * len(SCHEDULE)
    assert rule.basis is not None
    assert set(rule.basis.records) == ({1, 2} if sweeps == "auto" else {sweeps})
    (path,) = cache.iterdir()
    kept = json.loads(path.read_text())
    assert kept["shape"] == [3, 1, 8, 8]
    sampled(again, (0, 1, 2), **options)
    assert list(cache.iterdir()) == [path]
    # The file has the costs as measured, without a run's corrections.
    assert json.loads(path.read_text()) == kept


CURVE = '{"by": "rows", "rows": [1], "seconds": [1]}'
DAMAGED = [
    "",
    "{}",
    '{"costs": {"teacher": 3}}',
    "[]",
    f'{{"costs": {{"teacher": {CURVE}, "plain": {CURVE}, "other": {CURVE}, "draft": {{}}}}}}',
    '{"costs": {"teacher": {"rows": [Infinity], "seconds": [1]}}}',
    "[" * 100_000,
]


def test_damaged_costs_are_measured_again(cache: Path) -> None:
    sampled(AutoWindow(4), sweeps=1)
    (path,) = cache.iterdir()
    for text in DAMAGED:
        path.write_text(text)
        sampled(AutoWindow(4), sweeps=1)
        assert RoundCosts.from_dict(json.loads(path.read_text())["costs"])


def test_a_cache_that_cannot_be_written(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("FREE_CACHE", str(tmp_path / "file"))
    assert sampled(AutoWindow(4), sweeps=1).samples.isfinite().all()


@pytest.mark.usefixtures("no_cache")
def test_a_user_without_a_cache() -> None:
    assert sampled(AutoWindow(6)).samples.isfinite().all()


def test_costs_are_those_of_the_networks_of_the_run(cache: Path) -> None:
    """One rule in several samplers: another drafter, guidance or variance is measured anew.

    Networks of an unknown kind are told apart as objects, and their costs are not kept.
    """
    other = CallableDrafter(MixtureTeacher(4, shift=0.02))
    mixed = Schedule.ddpm(40, variance=lambda x, t: torch.full((len(x),), 0.5))
    rule, found = AutoWindow(4), []
    for drafter, schedule, scale in (
        (DRAFTER, SCHEDULE, 1.0),
        (other, SCHEDULE, 1.0),
        (DRAFTER, mixed, 1.0),
        (DRAFTER, SCHEDULE, 1.5),
        (DRAFTER, SCHEDULE, 1.0),
    ):
        SpeculativeSampler(TEACHER, drafter, schedule, rule, scale, sweeps=1).sample([0])
        assert rule.basis is not None
        found.append(rule.basis.costs)
    assert len({id(costs) for costs in found}) == 4
    assert found[-1] is found[0]
    assert not cache.exists()


def test_fingerprints_tell_engines_and_variances_apart() -> None:
    class Session:
        device = torch.device("cpu")

    def of(cost_key: Any, schedule: Schedule = SCHEDULE) -> str | None:
        return fingerprint(begun(EngineTeacher({"teacher": Session()}, CONFIG, cost_key), schedule))

    keys = [["onnxruntime", "cpu", None, {}], ["onnxruntime", "cpu", 2, {}], ["tensorrt", "cuda"]]
    found = [of(key) for key in keys]
    assert None not in found
    assert len(set(found)) == 3
    assert of(keys[0]) == found[0]
    assert of(None) is None  # sessions of an unknown kind
    assert of(keys[0], Schedule.ddpm(40, variance=lambda x, t: t * 0.0)) is None


@pytest.mark.parametrize("steps", [2, 3, 63])
def test_runs_shorter_than_the_widest_window(steps: int) -> None:
    def teacher(x: Any, t: Any, y: Any) -> TeacherOutput:
        return TeacherOutput(0.1 * x)

    teacher.num_classes = 3  # type: ignore[attr-defined]
    rule, schedule = AutoWindow(32), Schedule.ddpm(steps)
    sampler = SpeculativeSampler(teacher, "frozen", schedule, rule, sweeps=1, recycle="response")
    assert sampler.sample([0], shape=(1, 4, 4)).report.steps == steps
    assert rule.basis is not None
    assert float(rule.basis.costs.teacher(1)) > 0
