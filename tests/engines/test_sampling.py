"""The samplers on engines: the decisions and the samples are torch's."""

from __future__ import annotations

from typing import Any, NamedTuple

import pytest
import torch

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
from tests.exports import Export, close, small_model

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

    def sample(self, teacher: Teacher, drafter: Drafter, seed: int, **options: Any) -> Any:
        settings = self.settings | options
        return SpeculativeSampler(teacher, drafter, SCHEDULE, **settings).sample(LABELS, seed)


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


def same(got: SamplingResult, expected: SamplingResult) -> None:
    """Decision by decision, and in what came of them."""
    for field in ("rounds_by_sample", "teacher_rows", "examined_by_step", "accepted_by_step"):
        assert getattr(got.report, field) == getattr(expected.report, field), field
    close(got.samples, expected.samples, 1e-4)


RECYCLE = [False, "response", "control_variate", "reuse", "drafter", True]


@pytest.mark.parametrize("recycle", RECYCLE)
def test_decisions_and_samples_are_torchs(pair: Pair, recycle: bool | str) -> None:
    for seed in (0, 2**40):
        expected = pair.sample(pair.teacher, pair.drafter, seed, recycle=recycle)
        got = pair.sample(pair.engine, pair.engine_drafter, seed, recycle=recycle)
        same(got, expected)
        assert 0 < got.report.accepted < got.report.proposed  # both things happen
    assert got.samples.std() > 0.1


def test_one_graph_a_window(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    """A round is two engine calls, whatever the sweeps; comparing sources takes single steps."""
    calls: dict[str, int] = {}

    class Counted:
        def __init__(self, name: str, session: Any) -> None:
            self.name, self.session = name, session
            self.contract, self.device = session.contract, session.device

        def run(self, inputs: Any) -> Any:
            calls[self.name] = calls.get(self.name, 0) + 1
            return self.session.run(inputs)

    for part in (pair.engine, pair.engine_drafter):
        counted = {name: Counted(name, session) for name, session in part.sessions.items()}
        monkeypatch.setattr(part, "sessions", counted)
    ending = "_guided" if "cfg_scale" in pair.settings else ""
    report = pair.sample(pair.engine, pair.engine_drafter, 0).report
    assert calls.keys() == {f"teacher{ending}", f"draft{ending}"}
    assert calls[f"teacher{ending}"] == report.rounds
    assert report.rounds - 3 <= calls[f"draft{ending}"] < report.rounds  # ends need no draft
    calls.clear()
    pair.sample(pair.engine, pair.engine_drafter, 0, recycle=True)
    assert calls[f"drafter{ending}"] > 0


def test_engines_and_torch_mix(pair: Pair) -> None:
    expected = pair.sample(pair.teacher, pair.drafter, 5, recycle="response")
    same(pair.sample(pair.engine, pair.drafter, 5, recycle="response"), expected)
    same(pair.sample(pair.teacher, pair.engine_drafter, 5, recycle="response"), expected)


def test_a_variance_of_the_state_on_an_engine(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    """A window's graph has one sigma a transition; the drafter's own graph is asked instead."""
    schedule = Schedule.ddpm(
        40, beta_end=4e-3, variance=lambda x, t: x.flatten(1).mean(1).sigmoid()
    )
    monkeypatch.setitem(globals(), "SCHEDULE", schedule)
    expected = pair.sample(pair.teacher, pair.drafter, 5, recycle="response")
    same(pair.sample(pair.engine, pair.engine_drafter, 5, recycle="response"), expected)


def test_frozen_drafts_on_an_engine(pair: Pair) -> None:
    options = {"sweeps": 1, "recycle": "response"}
    expected = pair.sample(pair.teacher, FrozenDrafter(), 5, **options)
    same(pair.sample(pair.engine, FrozenDrafter(), 5, **options), expected)


def test_narrower_windows_and_other_ways_to_draft(pair: Pair) -> None:
    """Down to the plain sampler; what the window's graph cannot do goes step by step."""
    for options in ({"window": 1}, {"window": 2, "sweeps": 1}, {"sweeps": None}, {"sweeps": 3}):
        expected = pair.sample(pair.teacher, pair.drafter, 1, **options)
        same(pair.sample(pair.engine, pair.engine_drafter, 1, **options), expected)


def test_the_plain_sampler(pair: Pair) -> None:
    scale = pair.settings.get("cfg_scale", 1.0)
    expected, got = (
        SequentialSampler(teacher, SCHEDULE, scale).sample(LABELS, 4)
        for teacher in (pair.teacher, pair.engine)
    )
    close(got.samples, expected.samples, 1e-4)


def test_a_drafter_in_another_precision_leaves_the_law_to_the_teacher() -> None:
    """Where no draft is proposed the samples are the same; drafting differs a little."""
    model = small_model()
    engine, low = torch_engine(*model, 3, 1, max_batch=3, drafter_precision="fp16")
    plain = SpeculativeSampler(engine, low, SCHEDULE, window=1).sample(LABELS, 2)
    close(plain.samples, SequentialSampler(model[0], SCHEDULE).sample(LABELS, 2).samples, 1e-4)
    drafted = SpeculativeSampler(engine, low, SCHEDULE, window=3, sweeps=1).sample(LABELS, 2)
    assert drafted.report.accepted > 0


def test_guided_channels(guided_export: Export) -> None:
    engine, drafter = load_engine(guided_export.folder)
    settings = {"window": 3, "sweeps": 2, "cfg_scale": 2.5}
    both = [
        [
            SpeculativeSampler(*parts, SCHEDULE, cfg_channels=channels, **settings).sample(LABELS)
            for channels in (1, 2)
        ]
        for parts in ((guided_export.teacher, guided_export.drafter), (engine, drafter))
    ]
    for expected, got in zip(*both, strict=True):
        same(got, expected)
    assert (both[1][0].samples - both[1][1].samples).abs().max() > 0.01
    for sampler in (
        SpeculativeSampler(engine, drafter, SCHEDULE, cfg_channels=3, **settings),
        SequentialSampler(engine, SCHEDULE, 2.5, cfg_channels=3),
    ):
        with pytest.raises(ValueError, match="cfg_channels must be at most the 2 of a state, got"):
            sampler.sample(LABELS)


def test_what_was_not_exported_is_named(plain_export: Export, guided_export: Export) -> None:
    engine, drafter = load_engine(plain_export.folder)
    guided, _ = load_engine(guided_export.folder)
    with pytest.raises(
        ValueError, match="must have the graph teacher_guided for this, got teacher: export with"
    ):
        SpeculativeSampler(engine, drafter, SCHEDULE, 3, cfg_scale=1.5).sample(LABELS)
    with pytest.raises(
        ValueError, match="must have the graph teacher for this, got teacher_guided: export with"
    ):
        SequentialSampler(guided, SCHEDULE).sample(LABELS)


@pytest.mark.parametrize(("labels", "window"), [([0] * 4, 3), ([0] * 3, 6)])
def test_more_rows_than_the_profile(plain_export: Export, labels: list[int], window: int) -> None:
    engine, drafter = load_engine(plain_export.folder)
    with pytest.raises(
        ValueError, match=r"of \w+ must be in 1\.\.\d+, as it was exported, got \d+: export with a "
    ):
        SpeculativeSampler(engine, drafter, SCHEDULE, window).sample(labels)


def test_requests_are_checked_as_on_torch(plain_export: Export) -> None:
    engine, _ = load_engine(plain_export.folder)
    with pytest.raises(ValueError, match=r"labels must be in 0..14 or 15 \(the null class\), got"):
        SequentialSampler(engine, SCHEDULE).sample([16])
    result = SequentialSampler(engine, SCHEDULE).sample([15])
    assert result.samples.shape == (1, 2, 4, 4)
    assert result.samples.isfinite().all()
    assert result.samples.device == torch.device("cpu")
