"""The table of rows, and the samplers that they stand for."""

from typing import Any

import pytest

from free import FeatureDrafter, SequentialSampler, SpeculativeSampler, load_pretrained
from free.bench import ROWS, chosen_rows
from free.bench.samplers import Networks, StepByStep, sampler_of

GUIDANCE = {"cfg_scale": 1.5, "cfg_channels": None}


def test_rows_have_names_and_patterns() -> None:
    every = [row.name for row in ROWS]
    assert len(set(every)) == len(every)
    assert every[0] == "plain"
    names = [row.name for row in chosen_rows("free-*, paper")]
    assert names == ["plain", "paper", *(f"free-{w}" for w in (2, 4, 8, 16, 32, "auto"))]
    assert chosen_rows("*") == list(ROWS)
    with pytest.raises(ValueError, match="--rows must be of plain, ddpm-2.*got 'free-3'"):
        chosen_rows("plain,free-3")


def test_laws() -> None:
    laws = {row.name: row.law(250) for row in ROWS}
    assert laws["ddpm-4"] == "DDPM, 62 steps"
    assert laws["ddim-10"] == "DDIM, 25 steps"
    plain = {row.name for row in ROWS if row.law(250) == laws["plain"]}
    assert plain == {row.name for row in ROWS if row.lossless}
    assert not plain & {"relaxed", "ddpm-2", "ddim-2"}
    assert {"eps", "paper", "free-auto", "frozen-32", "block"} < plain


@pytest.fixture(scope="module")
def model() -> tuple[Any, FeatureDrafter]:
    """The drafter tells its configuration, as an engine's does."""
    teacher, drafter = load_pretrained("mnist")
    assert isinstance(drafter, FeatureDrafter)
    drafter.config = drafter.network.config  # type: ignore[attr-defined]
    return teacher, drafter


def test_every_row_is_a_sampler(model: tuple[Any, FeatureDrafter]) -> None:
    teacher, drafter = model
    networks = Networks(teacher, drafter, StepByStep(drafter))
    for row in ROWS:
        sampler = sampler_of(row, networks, 40, GUIDANCE)
        assert isinstance(sampler, SequentialSampler if row.window == 1 else SpeculativeSampler)
        assert sampler.guidance.scale == 1.5
        assert len(sampler.schedule) == 40 // row.part
        if not row.stochasticity:
            assert not sampler.schedule.sigma.any()
    few = sampler_of(chosen_rows("ddim-10")[1], networks, 19, GUIDANCE)
    assert few == "19 / 10 steps are fewer than 2"
    absent = [row for row in ROWS if isinstance(sampler_of(row, Networks(teacher), 40, {}), str)]
    assert absent == [row for row in ROWS if row.drafter == "trained"]


def test_step_by_step_drafts_the_same(model: tuple[Any, FeatureDrafter]) -> None:
    teacher, drafter = model
    row = chosen_rows("free-4")[1]
    one, two = (
        sampler_of(row, Networks(teacher, drafter, used), 12, GUIDANCE).sample([3], seed=1)
        for used in (drafter, StepByStep(drafter))
    )
    assert (one.samples == two.samples).all()
    assert one.report.rounds == two.report.rounds
