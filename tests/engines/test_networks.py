"""Networks on an engine: what they compute, ask for and refuse. What they draft, test_sampling.py
compares, in every window of whole runs.
"""

import copy
from typing import Any

import pytest
import torch
from torch import Tensor

from free import Schedule, SpeculativeSampler, TeacherOutput
from free.drafters.protocol import drafts_windows
from free.engines.networks import EngineDrafter
from free.export.package import torch_engine
from free.models.guidance import Guidance, GuidedTeacher
from tests.exports import close, small_model

TEACHER, DRAFTER = small_model()
GUIDANCE = Guidance(2.5, 1, TEACHER.null_label)
SCHEDULE = Schedule.ddpm(20, beta_end=4e-3)
ROWS = torch.randn(5, *TEACHER.sample_shape), torch.arange(0, 1000, 200), torch.arange(11, 16)


def drafter(sweeps: int | None = 1, **options: Any) -> EngineDrafter:
    made = torch_engine(TEACHER, DRAFTER, 4, sweeps, max_batch=3, **options)[1]
    assert isinstance(made, EngineDrafter)
    return made


def sample(teacher: Any, drafter: Any, **options: Any) -> Tensor:
    sampler = SpeculativeSampler(teacher, drafter, SCHEDULE, **{"window": 4, "sweeps": 1} | options)
    return sampler.sample([0, 7], 1, shape=TEACHER.sample_shape).samples


def test_teachers_are_the_networks() -> None:
    teacher = torch_engine(TEACHER, DRAFTER, 4, 1, max_batch=3)[0]
    with torch.no_grad():
        plain, guided = TEACHER(*ROWS), GuidedTeacher(TEACHER, GUIDANCE)(*ROWS)
    for call, expected in ((teacher, plain), (teacher.guided(GUIDANCE), guided)):
        for got, wanted in zip(call(*ROWS), expected, strict=True):
            close(got, wanted)
    assert (teacher.null_label, teacher.num_classes) == (15, 15)
    assert teacher.sample_shape == (2, 4, 4)


def test_windows_that_a_graph_drafts() -> None:
    """Neither wider ones nor other sweeps than its own."""
    made = drafter(2)
    assert drafts_windows(made)
    assert [made.drafts(width, 2) for width in (2, 4, 5)] == [True, True, False]
    assert not made.drafts(4, None)
    assert not made.drafts(4, 1)


@pytest.mark.parametrize("window", [4, 5])
def test_features_of_lower_precision_serve(window: int) -> None:
    """Of a teacher on torch; in one graph a window, and step by step."""
    low = copy.deepcopy(TEACHER).bfloat16()
    close(sample(low, drafter(), window=window), sample(low, DRAFTER, window=window), 1e-2)


def test_features_that_no_drafter_can_use() -> None:
    def teacher(x: Tensor, t: Tensor, y: Tensor) -> TeacherOutput:
        out = TEACHER(x, t, y)
        return out._replace(feature=None if spoil is None else out.feature * spoil)

    spoil: float | None = torch.nan
    with pytest.raises(FloatingPointError, match="drafter returned a non-finite"):
        sample(teacher, drafter())
    spoil = None
    with pytest.raises(ValueError, match="teacher must return a feature for this drafter, got"):
        sample(teacher, drafter())


def test_graphs_that_were_not_exported_are_named() -> None:
    teacher, plain = torch_engine(TEACHER, DRAFTER, 4, 1, 3, guidance=(False,))
    only_guided, _ = torch_engine(TEACHER, None, 4, guidance=(True,))
    for call, graph, others in (
        (lambda: teacher.guided(GUIDANCE)(*ROWS), "teacher_guided", "teacher"),
        (lambda: sample(TEACHER, plain, cfg_scale=2.5), "draft_guided", "teacher, drafter, draft"),
        (lambda: only_guided(*ROWS), "teacher", "teacher_guided"),
    ):
        message = f"have the graph {graph} for this, got {others}: export with --guidance both"
        with pytest.raises(ValueError, match=message):
            call()
