"""The table of rows, and the samplers that they stand for."""

from typing import Any

import pytest

from free import (
    FeatureDrafter,
    Schedule,
    SequentialSampler,
    SpeculativeSampler,
    load_pretrained,
)
from free.bench import ROWS, chosen_rows
from free.bench.samplers import Networks, StepByStep, sampler_of
from free.bench.style import COLOURS

GUIDANCE = {"cfg_scale": 1.5, "cfg_channels": None}


def test_rows_have_names_and_patterns() -> None:
    every = [row.name for row in ROWS]
    assert len(set(every)) == len(every)
    assert every[0] == "plain"
    names = [row.name for row in chosen_rows("free-*, paper")]
    assert names == ["plain", "paper", *(f"free-{w}" for w in (2, 4, 8, 16, 32, "auto"))]
    assert chosen_rows("*") == list(ROWS)
    with pytest.raises(ValueError, match="--rows must be of plain, ddim.*got 'free-3'"):
        chosen_rows("plain,free-3")


def test_what_is_lossless() -> None:
    lossless = {row.name for row in ROWS if row.lossless}
    assert {row.name for row in ROWS} - lossless == {"ddim", "relaxed"}
    assert all(row.method in COLOURS for row in ROWS)


@pytest.fixture(scope="module")
def model() -> tuple[Any, FeatureDrafter]:
    """The drafter tells its configuration, as an engine's does."""
    teacher, drafter = load_pretrained("mnist")
    assert isinstance(drafter, FeatureDrafter)
    drafter.config = drafter.network.config  # type: ignore[attr-defined]
    return teacher, drafter


def test_every_row_is_a_sampler(model: tuple[Any, FeatureDrafter]) -> None:
    teacher, drafter = model
    networks, schedule = Networks(teacher, drafter, StepByStep(drafter)), Schedule.ddpm(20)
    for row in ROWS:
        sampler = sampler_of(row, networks, schedule, GUIDANCE)
        assert isinstance(sampler, SequentialSampler if row.window == 1 else SpeculativeSampler)
        assert sampler.guidance.scale == 1.5
        assert len(sampler.schedule) == 20


def test_without_a_trained_drafter_the_image_is_kept(model: tuple[Any, FeatureDrafter]) -> None:
    rows = chosen_rows("paper,free-8")[1:]
    paper, free = (sampler_of(row, Networks(model[0]), Schedule.ddpm(9), {}) for row in rows)
    assert paper == "the model has no trained drafter"
    assert isinstance(free, SpeculativeSampler)
    assert (free.drafter.keep, free.window) == ("image", 8)


def test_step_by_step_drafts_the_same(model: tuple[Any, FeatureDrafter]) -> None:
    teacher, drafter = model
    row = chosen_rows("free-4")[1]
    one, two = (
        sampler_of(row, Networks(teacher, drafter, used), Schedule.ddpm(12), GUIDANCE).sample(
            [3], seed=1
        )
        for used in (drafter, StepByStep(drafter))
    )
    assert (one.samples == two.samples).all()
    assert one.report.rounds == two.report.rounds
    assert one.report.drafter_calls > 0  # "FREE" asks the model's drafter
