"""The samplers on engines: the decisions and the samples are torch's."""

from typing import Any, NamedTuple

import pytest

from free import (
    FeatureDrafter,
    FrozenDrafter,
    SamplingResult,
    Schedule,
    SequentialSampler,
    SpeculativeSampler,
)
from free.drafters import Drafter
from free.engines.load import load_engine
from free.engines.networks import EngineDrafter, EngineTeacher
from free.export.package import torch_engine
from free.models.output import Teacher
from tests.exports import Export, Spied, close, small_model

#: Little noise: where an untrained teacher's x0 is far off, nothing would be accepted.
SCHEDULE = Schedule.ddpm(40, beta_end=4e-3)
LABELS = [0, 7, 15]  # the last is the null class


class Pair(NamedTuple):
    """The same model on torch and on an engine, and how its windows are drafted."""

    teacher: Teacher
    drafter: FeatureDrafter
    engine: EngineTeacher
    engine_drafter: EngineDrafter
    settings: dict[str, Any]

    def sample(self, teacher: Teacher, drafter: Drafter, **options: Any) -> SamplingResult:
        settings = {"schedule": SCHEDULE, **self.settings, **options}
        return SpeculativeSampler(teacher, drafter, **settings).sample(LABELS, 2**40)

    def compare(self, **options: Any) -> SamplingResult:
        """Sample on both; decisions and what came of them must agree."""
        expected = self.sample(self.teacher, self.drafter, **options)
        got = self.sample(self.engine, self.engine_drafter, **options)
        same(got, expected)
        return got


def same(got: SamplingResult, expected: SamplingResult) -> None:
    for field in ("rounds_by_sample", "teacher_rows", "examined_by_step", "accepted_by_step"):
        assert getattr(got.report, field) == getattr(expected.report, field), field
    close(got.samples, expected.samples, 1e-4)


@pytest.fixture(scope="module", params=["onnx-sweeps=2", "onnx-sweeps=None", "torch-sweeps=1"])
def pair(request: pytest.FixtureRequest) -> Pair:
    """ONNX Runtime for all that is exported here; the rest on the graphs' own engine, torch."""
    if request.param.startswith("onnx"):
        guided = request.param.endswith("2")
        name = "guided_export" if guided else "plain_export"
        exported: Export = request.getfixturevalue(name)
        model = exported.teacher, exported.drafter
        engine = load_engine(exported.folder)
        settings = {"window": 3, "sweeps": 2 if guided else None}
        settings |= {"cfg_scale": 1.8} if guided else {}
    else:
        model = small_model()
        settings = {"window": 5, "sweeps": 1, "cfg_scale": 1.8}
        engine = torch_engine(*model, 5, 1, max_batch=3)
    teacher, drafter = engine
    assert isinstance(drafter, EngineDrafter)
    return Pair(*model, teacher, drafter, settings)


#: A window's graph has one sigma a transition; the drafter's own graph is called instead.
OF_THE_STATE = Schedule.ddpm(
    40, beta_end=4e-3, variance=lambda x, t: x.flatten(1).mean(1).sigmoid()
)


@pytest.mark.parametrize(
    ("pair", "options"),
    [
        ("onnx-sweeps=2", {"recycle": False}),
        ("onnx-sweeps=2", {"recycle": "response"}),
        ("onnx-sweeps=None", {"recycle": "reuse"}),
        ("onnx-sweeps=None", {"recycle": "drafter"}),
        ("torch-sweeps=1", {"recycle": True}),
        ("onnx-sweeps=None", {"window": 2}),
        # Other windows than the graph's go step by step.
        ("onnx-sweeps=2", {"sweeps": None}),
        ("onnx-sweeps=2", {"schedule": OF_THE_STATE, "recycle": "response"}),
    ],
    indirect=["pair"],
)
def test_decisions_and_samples_are_torchs(pair: Pair, options: dict[str, Any]) -> None:
    result = pair.compare(**options)
    assert 0 < result.report.accepted < result.report.proposed  # both things happen
    assert result.samples.std() > 0.1


def test_one_graph_a_window(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    """A round is two engine calls, whatever the sweeps, of those that the graph was made for."""
    spied: dict[str, Spied] = {}
    for part in (pair.engine_drafter, pair.engine):
        own = {name: Spied(session) for name, session in part.sessions.items()}
        monkeypatch.setattr(part, "sessions", own)
        spied |= own
    ending = "_guided" if "cfg_scale" in pair.settings else ""
    report = pair.sample(pair.engine, pair.engine_drafter).report
    calls = {name: len(session.calls) for name, session in spied.items() if session.calls}
    assert calls.keys() == {f"teacher{ending}", f"draft{ending}"}
    assert calls[f"teacher{ending}"] == report.rounds
    if pair.settings["sweeps"] == 1:
        assert report.drafter_calls == calls[f"draft{ending}"]
    assert report.rounds - 3 <= calls[f"draft{ending}"] < report.rounds  # ends need no draft
    pair.sample(pair.engine, pair.engine_drafter, sweeps=None if pair.settings["sweeps"] else 1)
    assert spied[f"drafter{ending}"].calls
    assert len(spied[f"draft{ending}"].calls) == calls[f"draft{ending}"]


@pytest.mark.parametrize("pair", ["onnx-sweeps=2"], indirect=True)
def test_engines_torch_and_frozen_drafts_mix(pair: Pair) -> None:
    expected = pair.sample(pair.teacher, pair.drafter)
    same(pair.sample(pair.engine, pair.drafter), expected)
    same(pair.sample(pair.teacher, pair.engine_drafter), expected)
    frozen = [pair.sample(t, FrozenDrafter(), sweeps=1) for t in (pair.engine, pair.teacher)]
    same(*frozen)


@pytest.mark.parametrize("pair", ["onnx-sweeps=2"], indirect=True)
def test_guided_channels(pair: Pair) -> None:
    one, two = (pair.compare(cfg_channels=channels).samples for channels in (1, 2))
    assert (one - two).abs().max() > 0.01
    for sampler in (
        SpeculativeSampler(
            pair.engine, pair.engine_drafter, SCHEDULE, cfg_channels=3, **pair.settings
        ),
        SequentialSampler(pair.engine, SCHEDULE, 2.5, cfg_channels=3),
    ):
        with pytest.raises(ValueError, match="cfg_channels must be at most the 2 of a state, got"):
            sampler.sample(LABELS)


def test_what_an_engine_cannot_serve_is_named(plain_export: Export) -> None:
    engine, drafter = load_engine(plain_export.folder)
    rows = r"of \w+ must be in 1\.\.\d+, as it was exported, got \d+: export with a "
    for labels, window in (([0] * 4, 3), ([0] * 3, 6)):
        with pytest.raises(ValueError, match=rows):
            SpeculativeSampler(engine, drafter, SCHEDULE, window).sample(labels)
    with pytest.raises(ValueError, match=r"labels must be in 0..14 or 15 \(the null class\), got"):
        SequentialSampler(engine, SCHEDULE).sample([16])
