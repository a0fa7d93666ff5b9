"""The law of whole runs, however windows are drafted and verified and whatever is recycled.

Two dozen cells (:mod:`tests.law.cells`) are chosen by risk: every level of every factor in two or
more, with deep windows that recycle, windows of one draft, block verification with sweeps, and
guidance. As all cells of a teacher have one law and different seeds, their samples are also pooled,
200,000 chains against 200,000 sequential ones. All combinations are slow tests. Each planted bug
must be found.
"""

import functools
from typing import Any

import pytest
import torch
from torch import Tensor

import free.rounds.round
from free import (
    DiT,
    DiTConfig,
    DrafterNet,
    FeatureDrafter,
    Schedule,
    SequentialSampler,
    SpeculativeSampler,
)
from free.schedule.table import Table
from tests.law import planted
from tests.law.cells import CASES, CHAINS, LABELS, LEVEL, SCHEDULES, Cell
from tests.law.paths import margins_p
from tests.law.stats import energy_test, ks_two_sample
from tests.networks import randomized

LINEAR = {"case": "nearly linear"}
POOLED = [
    Cell(4),  # the paper's
    Cell(4, case="near"),
    Cell(16, verifier="block"),
    Cell(16, 1, "response"),
    Cell(8, 3, "drafter"),
    Cell(2, None, "response"),
    Cell(8, 1, verifier="block"),
    Cell(8, 1, "response", drafter="image"),
    Cell(8, 1, drafter="eps"),
    Cell("erratic"),
    Cell(8, 1, "response", **LINEAR),
    Cell(2, 1, "reuse", **LINEAR),
    Cell(4, None, "drafter", **LINEAR, drafter="anchored"),
    Cell(16, 3, "reuse", **LINEAR),
    Cell(4, 2, verifier="block", **LINEAR),
    Cell(8, 3, **LINEAR),
    Cell(16, None, "response", **LINEAR),
    Cell(16, 2, "response", drafter="anchored", **LINEAR),
    Cell("erratic", 2, "response", **LINEAR),
    Cell(8, 2, "reuse", drafter="image", **LINEAR),
]
OTHERS = [
    Cell(8, 1, "response", cfg_scale=1.5),
    Cell(4, verifier="block", case="near", cfg_scale=1.5),
    Cell(8, 0, "response", case="nearly linear"),
    Cell(8, 0, "reuse"),
    Cell(4, 0, verifier="block"),
    Cell(4, 1, schedule="without x0"),
    Cell(8, 2, "response", schedule="without x0"),
]
GRID = [
    Cell(window, sweeps, recycle, verifier, case=case)
    for case in ("nonlinear", "nearly linear")
    for sweeps in (None, 1, 2, 3)
    for recycle, verifier in (
        *((recycle, "reflection") for recycle in (False, "response", "reuse", "drafter")),
        (False, "block"),
    )
    for window in (2, 4, 8, 16)
]
CELLS = list(dict.fromkeys(POOLED + OTHERS + GRID))


@functools.cache
def _judged(cell: Cell) -> tuple[Tensor, float, float]:
    """What is left of a run: its samples, the p of its innovations, its acceptance."""
    run = cell.run(seed=(1 + CELLS.index(cell)) * CHAINS)
    return run.samples, run.p, run.acceptance


@pytest.mark.parametrize(
    "cell",
    [pytest.param(c, marks=[] if c in POOLED + OTHERS else pytest.mark.slow) for c in CELLS],
    ids=lambda cell: "-".join(str(value) for value in cell),
)
def test_law_of_a_cell(cell: Cell) -> None:
    samples, p, acceptance = _judged(cell)
    assert 0.03 < acceptance < 0.95
    assert p > LEVEL
    assert margins_p(samples, cell.sequential()) > LEVEL


@pytest.mark.parametrize("case", ["nonlinear", "nearly linear"])
def test_law_of_pooled_samples(case: str) -> None:
    """The energy distance sees what no margin shows; a part of each cell, 20,000 chains in all."""
    cells = [c for c in POOLED if CASES[c.case].teacher.spread == CASES[case].teacher.spread]
    pool, sequential = [_judged(cell)[0] for cell in cells], cells[0].sequential()
    assert len(pool) == 10
    assert margins_p(torch.cat(pool), sequential) > LEVEL
    part = torch.cat([samples[: CHAINS // len(cells)] for samples in pool])
    assert energy_test(part, sequential[: len(part)]) > LEVEL


@pytest.mark.slow
@pytest.mark.parametrize(
    ("case", "factor", "level"),
    [
        (case, factor, level)
        for case in ("nonlinear", "nearly linear")
        for factor in ("window", "sweeps", "recycle", "verifier")
        for level in dict.fromkeys(getattr(cell, factor) for cell in GRID)
    ],
)
def test_law_of_pooled_samples_by_factor(case: str, factor: str, level: Any) -> None:
    cells = [c for c in GRID if c.case == case and getattr(c, factor) is level]
    pool = torch.cat([_judged(cell)[0] for cell in cells])
    assert len(pool) > 150_000
    assert margins_p(pool, cells[0].sequential()) > LEVEL


def test_the_chosen_cells_have_every_level_twice() -> None:
    for factor, column in zip(Cell._fields, zip(*GRID, strict=True), strict=True):
        levels = {
            *column,
            *{"drafter": ("anchored", "image"), "window": ("erratic",)}.get(factor, ()),
        }
        for level in levels:
            assert sum(getattr(cell, factor) == level for cell in POOLED + OTHERS) >= 2
    assert not Table.of(SCHEDULES["without x0"], "cpu").images


def test_sequential_law_is_the_mixture() -> None:
    """The reference itself: with many steps it is the data's law, within its modes."""
    teacher = CASES["nonlinear"].teacher
    samples = SequentialSampler(teacher, Schedule.ddpm(250)).sample([0] * 3000, seed=5).samples
    noise = torch.randn(3000, 2, generator=torch.Generator().manual_seed(0))
    data = teacher.modes[torch.arange(3000) % 3] + teacher.spread * noise
    for v in torch.eye(2):
        distance = ((samples @ v).sort().values - (data @ v).sort().values).abs().mean()
        assert distance < 0.05  # Wasserstein; the data has a standard deviation of about 1


@pytest.mark.parametrize("verifier", ["reflection", pytest.param("block", marks=pytest.mark.slow)])
def test_law_with_the_feature_drafter_and_guidance(verifier: str) -> None:
    """The networks that are shipped, small and with random weights: features, carries, two rows
    a state. 2,000 samples.
    """
    config = DiTConfig(4, 2, 1, 16, 1, 2, num_classes=2, learn_sigma=False)
    teacher, network = randomized(DiT(config)), randomized(DrafterNet(config), seed=1)
    teacher.final_layer.linear.weight.mul_(0.1)
    network.final_layer.linear.weight.mul_(0.01)
    drafter, schedule = FeatureDrafter(network, teacher), Schedule.ddpm(16)
    labels = torch.arange(2000) % 2
    plain = SequentialSampler(teacher, schedule, 1.5).sample(labels, 10**6).samples.flatten(1)
    directions = torch.randn(16, 6, generator=torch.Generator().manual_seed(0))
    sampler = SpeculativeSampler(teacher, drafter, schedule, 3, 1.5, verifier=verifier)
    samples, report = sampler.sample(labels, 0)
    assert 0.05 < report.accepted / sum(report.examined_by_step) < 0.95
    fast = samples.flatten(1)
    tests = [ks_two_sample(fast @ v, plain @ v) for v in directions.T]
    tests.append(energy_test(fast, plain))
    assert len(tests) * min(tests) > LEVEL


# --- mistakes of the verifier --------------------------------------------------------------------


@pytest.mark.parametrize("bug", planted.MISTAKES)
def test_planted_bugs_are_found(bug, monkeypatch) -> None:
    """In the samples of a cell, 20,000 of them: by their margins, or all directions together."""
    monkeypatch.setattr(free.rounds.round, "verify_window", planted.planted(bug))
    cell = Cell(4, case="near")
    samples, sequential = cell.sampler().sample(LABELS, 0).samples, cell.sequential()
    p = margins_p(samples, sequential)
    if p > LEVEL / 200:
        p = energy_test(samples, sequential[:CHAINS])
    assert 2 * p < LEVEL / 100
