"""The table of rows, and the samplers that they stand for."""

import pytest

from free.bench import ROWS, chosen_rows
from free.bench.samplers import Networks, StepByStep, sampler_of
from free.pretrained import load_pretrained
from free.sampling.sequential import SequentialSampler
from free.sampling.speculative import SpeculativeSampler


def test_names_are_distinct_and_the_first_is_plain() -> None:
    names = [row.name for row in ROWS]
    assert len(set(names)) == len(names)
    assert names[0] == "plain"


def test_patterns() -> None:
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


def test_every_row_is_a_sampler() -> None:
    teacher, drafter = load_pretrained("mnist")
    networks = Networks(teacher, drafter, StepByStep(drafter_with_config(drafter)))
    for row in ROWS:
        sampler = sampler_of(row, networks, 40, 1.5, None)
        assert isinstance(sampler, SequentialSampler if row.window == 1 else SpeculativeSampler)
        assert len(sampler.schedule) == 40 // row.part
        if not row.stochasticity:
            assert not sampler.schedule.sigma.any()
    assert sampler_of(chosen_rows("ddim-10")[1], networks, 19, 1.5, None) == (
        "19 / 10 steps are fewer than 2"
    )
    absent = [
        row.name for row in ROWS if isinstance(sampler_of(row, Networks(teacher), 40, 1, None), str)
    ]
    assert absent == [row.name for row in ROWS if row.drafter == "trained"]


def drafter_with_config(drafter: object) -> object:
    """As an engine's drafter has it."""
    drafter.config = drafter.network.config  # type: ignore[attr-defined]
    return drafter


def test_step_by_step_drafts_the_same() -> None:
    teacher, drafter = load_pretrained("mnist")
    row = chosen_rows("free-4")[1]
    wrapped = StepByStep(drafter_with_config(drafter))
    runs = [
        sampler_of(row, Networks(teacher, drafter, used), 12, 1.5, None).sample([3], seed=1)
        for used in (drafter, wrapped)
    ]
    assert (runs[0].samples == runs[1].samples).all()
    assert runs[0].report.rounds == runs[1].report.rounds
