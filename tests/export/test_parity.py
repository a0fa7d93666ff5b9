"""The check must pass where it should, and must be able to fail."""

import dataclasses
import functools
import json
import math
from typing import Any

import pytest
import torch

from free import DiT, DiTConfig, DrafterNet, FeatureDrafter, Schedule
from free.engines.manifest import Manifest
from free.engines.networks import EngineTeacher
from free.export.package import torch_engine
from free.export.parity import Agreement, check_graphs, check_sampling, parity_record
from tests.networks import randomized

CONFIG = DiTConfig(8, 4, 1, 16, 1, 2, num_classes=3, learn_sigma=False)
SETTINGS = {"window": 4, "sweeps": 1, "recycle": "response"}
SCHEDULE = Schedule.ddpm(50)
MANIFEST = Manifest({}, ("", ""), {}, "fp32", "fp32", 4, 1, 2, SETTINGS, {}, {})


@functools.cache
def model(seed: int = 0) -> tuple[DiT, FeatureDrafter]:
    teacher = randomized(DiT(CONFIG), seed)
    for weight in teacher.parameters():
        weight *= 0.5  # tame enough for some drafts to be accepted and some not
    network = DrafterNet(CONFIG).eval().requires_grad_(False)
    return teacher, FeatureDrafter(network, teacher)


def engine(seed: int = 0, **options: Any) -> tuple[EngineTeacher, Any]:
    return torch_engine(*model(seed), window=4, sweeps=1, max_batch=2, **options)


def agreement(networks: tuple[Any, Any], **options: Any) -> Agreement:
    settings = {"settings": SETTINGS, "schedule": SCHEDULE, "labels": [0, 1, 2], **options}
    return check_sampling(*model(), *networks, **settings)


@pytest.mark.parametrize("seed", [0, 1])
def test_graphs_agree_with_themselves_and_not_with_another_teacher(seed: int) -> None:
    teacher, drafter = engine(seed)
    sessions = teacher.sessions | drafter.sessions
    corners = check_graphs(*model(), MANIFEST, sessions)
    assert {corner.graph for corner in corners} == sessions.keys()
    assert {"rows": 8} in [corner.sizes for corner in corners if corner.graph == "teacher"]
    worst = max(corner.relative for corner in corners if corner.graph.startswith("teacher"))
    assert (worst == 0) if seed == 0 else (worst > 0.1)


@pytest.mark.parametrize("autocast", [False, True])
def test_sampling_agrees_with_itself_and_its_record_is_json(autocast: bool) -> None:
    """Both sides keep to their precision in a caller's autocast."""
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        found = agreement(engine())
    assert found.identical == 1
    assert found.images == 3
    assert found.efficiency == found.efficiency_engine > 1
    assert found.delta_shift < 1e-4
    assert found.largest < 1e-2  # of samples in the hundreds
    record = parity_record([], dataclasses.replace(found, largest=math.nan), 1e-4)
    assert json.loads(json.dumps(record, allow_nan=False))["sampling"]["largest"] is None


class Shifted(EngineTeacher):
    """An engine whose eps is off by one constant everywhere."""

    offset = 0.5

    def guided(self, guidance: Any) -> Any:
        inner = super().guided(guidance)

        def call(x: Any, t: Any, y: Any) -> Any:
            out = inner(x, t, y)
            return out._replace(eps=out.eps + self.offset)

        return call


def test_a_shift_of_eps_is_measured() -> None:
    teacher, drafter = engine()
    found = agreement((Shifted(teacher.sessions, CONFIG), drafter))
    # Each transition's mean is moved by |b| * offset in all 64 pixels.
    factors = abs(SCHEDULE.b[1:-1]) / SCHEDULE.sigma[1:-1] * 0.5 * 8
    assert factors.min() * 0.99 < found.delta_shift < factors.max() * 1.01


def test_another_teacher_decides_otherwise() -> None:
    found = agreement(engine(1), labels=[0, 1, 2] * 2)
    assert found.identical < 1
    assert found.delta_shift > 1


def test_without_guidance() -> None:
    plain = engine(guidance=(False,))
    assert agreement(plain, labels=[0], cfg_scale=1.0).identical == 1
    with pytest.raises(ValueError, match="engine must have the graph teacher_guided"):
        agreement(plain, labels=[0], cfg_scale=1.5)


class Broken:
    """A session whose outputs are NaN."""

    def __init__(self, session: Any) -> None:
        self.session, self.device = session, session.device

    def run(self, inputs: Any) -> Any:
        return {name: value * math.nan for name, value in self.session.run(inputs).items()}


def test_nan_is_the_largest_error_and_can_be_recorded() -> None:
    teacher, _ = engine()
    corners = check_graphs(*model(), MANIFEST, {"teacher": Broken(teacher.sessions["teacher"])})
    assert {corner.relative for corner in corners} == {math.inf}
    record = parity_record(corners, agreement(engine(), labels=[0]), 1e-4)
    assert {graph["relative"] for graph in record["graphs"]} == {None}
    json.dumps(record, allow_nan=False)
