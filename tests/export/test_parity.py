"""The check must pass where it should, and must be able to fail."""

import json
import math

import pytest

from free import DiT, DiTConfig, DrafterNet, FeatureDrafter, Schedule
from free.engines.manifest import Manifest
from free.engines.networks import EngineTeacher
from free.export.package import torch_engine
from free.export.parity import check_graphs, check_sampling, parity_record
from tests.networks import randomized

CONFIG = DiTConfig(8, 4, 1, 16, 1, 2, num_classes=3, learn_sigma=False)
SETTINGS = {"window": 4, "sweeps": 1, "recycle": "response"}
SCHEDULE = Schedule.ddpm(100)


def model(seed: int = 0) -> tuple[DiT, FeatureDrafter]:
    teacher = randomized(DiT(CONFIG), seed)
    assert isinstance(teacher, DiT)
    for weight in teacher.parameters():
        weight *= 0.5  # tame enough for some drafts to be accepted and some not
    network = DrafterNet(CONFIG).eval().requires_grad_(False)
    return teacher, FeatureDrafter(network, teacher)


MANIFEST = Manifest({}, ("", ""), {}, "fp32", "fp32", 4, 1, 2, SETTINGS, {}, {})


@pytest.mark.parametrize("seed", [0, 1])
def test_graphs_agree_with_themselves_and_not_with_another_teacher(seed: int) -> None:
    teacher, drafter = model()
    engine, engine_drafter = torch_engine(*model(seed), window=4, sweeps=1, max_batch=2)
    sessions = engine.sessions | engine_drafter.sessions
    corners = check_graphs(teacher, drafter, MANIFEST, sessions)
    assert {corner.graph for corner in corners} == sessions.keys()
    assert {"rows": 8} in [corner.sizes for corner in corners if corner.graph == "teacher"]
    worst = max(corner.relative for corner in corners if corner.graph.startswith("teacher"))
    assert (worst == 0) if seed == 0 else (worst > 0.1)


def test_sampling_agrees_with_itself() -> None:
    teacher, drafter = model()
    engine = torch_engine(teacher, drafter, window=4, sweeps=1)
    found = check_sampling(teacher, drafter, *engine, SETTINGS, SCHEDULE, [0, 1, 2])
    assert found.identical == 1
    assert found.images == 3
    assert found.efficiency == found.efficiency_engine > 1
    assert found.delta_shift < 1e-4
    assert found.largest < 1e-2  # of samples in the hundreds


class Shifted(EngineTeacher):
    """An engine whose eps is off by one constant everywhere."""

    offset = 0.5

    def guided(self, guidance):
        inner = super().guided(guidance)

        def call(x, t, y):
            out = inner(x, t, y)
            return out._replace(eps=out.eps + self.offset)

        return call


def test_a_shift_of_eps_is_measured() -> None:
    teacher, drafter = model()
    engine, engine_drafter = torch_engine(teacher, drafter, window=4, sweeps=1)
    shifted = Shifted(engine.sessions, CONFIG)
    found = check_sampling(teacher, drafter, shifted, engine_drafter, SETTINGS, SCHEDULE, [0, 1, 2])
    # Each transition's mean is moved by |b| * offset in all 64 pixels.
    factors = abs(SCHEDULE.b[1:-1]) / SCHEDULE.sigma[1:-1] * 0.5 * 8
    assert factors.min() * 0.99 < found.delta_shift < factors.max() * 1.01


def test_another_teacher_decides_otherwise() -> None:
    engine = torch_engine(*model(1), window=4, sweeps=1)
    found = check_sampling(*model(), *engine, SETTINGS, SCHEDULE, [0, 1, 2] * 3)
    assert found.identical < 1
    assert found.delta_shift > 1


def test_record_is_json() -> None:
    teacher, drafter = model()
    engine = torch_engine(teacher, drafter, window=4, sweeps=1)
    found = check_sampling(teacher, drafter, *engine, SETTINGS, SCHEDULE, [0])
    record = parity_record([], found.__class__(**{**vars(found), "largest": math.nan}), 1e-4)
    assert json.loads(json.dumps(record, allow_nan=False))["sampling"]["largest"] is None


def test_without_guidance() -> None:
    teacher, drafter = model()
    engine = torch_engine(teacher, drafter, window=4, sweeps=1, guidance=(False,))
    found = check_sampling(teacher, drafter, *engine, SETTINGS, SCHEDULE, [0], cfg_scale=1.0)
    assert found.identical == 1
    with pytest.raises(ValueError, match="engine must have the graph teacher_guided"):
        check_sampling(teacher, drafter, *engine, SETTINGS, SCHEDULE, [0], cfg_scale=1.5)
