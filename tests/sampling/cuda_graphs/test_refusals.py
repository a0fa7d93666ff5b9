"""Where rounds are not captured, and what is said; networks that fail in captured rounds."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from free import Relaxation, Schedule, SequentialSampler, SpeculativeSampler, TeacherOutput
from free.sampling.cuda_graphs import Graphs
from free.sampling.cuda_graphs.capture import CaptureError
from tests.networks import CallableDrafter, MixtureTeacher
from tests.sampling.cuda_graphs.captures import (
    LABELS,
    SCHEDULE,
    SEEDS,
    TEACHER,
    Guessing,
    graphed,
    repeated,
    sampler,
)


class Broken(MixtureTeacher):
    """Says NaN of class 1 from some timestep on."""

    def __call__(self, x: Tensor, t: Tensor, y: Tensor) -> TeacherOutput:
        eps = super().__call__(x, t, y).eps
        return TeacherOutput(torch.where(((t < 500) & (y == 1))[:, None], torch.nan, eps))


@pytest.mark.parametrize("window", [1, 6])
def test_a_network_that_fails_is_named(window: int) -> None:
    step = int((torch.tensor(SCHEDULE.timesteps) < 500).int().argmax())
    made = graphed(SpeculativeSampler(Broken(4), "frozen", SCHEDULE, window, sweeps=1))
    message = rf"^teacher returned a non-finite eps at step \[{step}\] for sample \[1, 3\]$"
    for _ in range(2):
        with pytest.raises(FloatingPointError, match=message):
            made.sample([0, 1, 0, 1], 0)
    assert made.sample([0, 0], 0).samples.isfinite().all()


class Late(Guessing):
    """A drafter that says NaN from transition 10 on."""

    def predict(self, x: Tensor, k: Tensor, y: Tensor, carry: Any) -> Any:
        eps, carry = super().predict(x, k, y, carry)
        return torch.where((k >= 10)[:, None], torch.nan, eps), carry


@pytest.mark.parametrize("sweeps", [None, 1])
def test_the_drafter_is_named_where_it_is_the_drafters(sweeps: int | None) -> None:
    with pytest.raises(FloatingPointError, match=r"^drafter .* at step \[10\] for sample \[0\]$"):
        graphed(sampler(Late(TEACHER), sweeps=sweeps)).sample([0], 0)


def test_what_nobody_wanted_is_not_judged() -> None:
    """Discarded states that are not recycled, rows past the end, samples that have finished."""

    class Odd(Guessing):
        def predict(self, x: Tensor, k: Tensor, y: Tensor, carry: Any) -> Any:
            asked.append(k)
            eps, carry = super().predict(x, k, y, carry)
            return torch.where((k == 29)[:, None], torch.nan, eps), carry

    asked: list[Tensor] = []
    for recycle in (False, True, "drafter"):
        graphed(sampler(Odd(TEACHER), sweeps=1, recycle=recycle)).sample(LABELS, SEEDS)
    assert max(int(k.max()) for k in asked) == 29


class Outside(MixtureTeacher):
    capturable = False


class Pure(MixtureTeacher):
    capturable = True


class Varied(MixtureTeacher):
    """With variance channels."""

    def __call__(self, x: Tensor, t: Tensor, y: Tensor) -> TeacherOutput:
        return super().__call__(x, t, y)._replace(variance=torch.zeros_like(x))


def frozen(teacher: Any, drafter: Any = "frozen", **options: Any) -> SpeculativeSampler:
    schedule = options.pop("schedule", SCHEDULE)
    return SpeculativeSampler(teacher, drafter, schedule, 4, **options)


#: Whether graph=True makes it an error, or takes the network for a function of its rows.
REFUSALS: dict[str, tuple[Callable[[], Any], bool]] = {
    "windows are chosen anew in every round": (lambda: sampler(window="auto"), True),
    "the teacher runs outside of torch": (lambda: frozen(Outside(4)), True),
    "a learned variance is checked in every round": (
        lambda: frozen(Varied(4), relaxation=Relaxation("allow", 0.3, None, "learned_variance")),
        True,
    ),
    "a variance of the state is checked in every round": (
        lambda: frozen(
            TEACHER, schedule=Schedule.ddpm(30, variance=lambda x, t: 0.5 + 0.0 * x[:, 0])
        ),
        True,
    ),
    "the teacher is no torch.nn.Module; graph=True takes it for a function": (
        lambda: frozen(TEACHER),
        False,
    ),
    "the drafter is no torch.nn.Module; graph=True takes it for a function": (
        lambda: frozen(Pure(4), CallableDrafter(TEACHER)),
        False,
    ),
}


@pytest.mark.parametrize("why", REFUSALS)
def test_why_there_is_no_graph(why: str) -> None:
    make, is_an_error = REFUSALS[why]
    made = make()
    made._graphs = Graphs(None, repeated)
    assert made.sample([0, 1], 0).report.execution == f"eager: {why}"
    if is_an_error:
        made._graphs = Graphs(True, repeated)
        with pytest.raises(ValueError, match=f"^graph must be False or None .* got True: {why}$"):
            made.sample([0, 1], 0)


def test_there_is_none_on_the_cpu_or_unasked() -> None:
    assert sampler(graph=False).sample([0], 0).report.execution == "eager: as asked"
    why = "states are on cpu, not on a CUDA device"
    assert sampler().sample([0], 0).report.execution == f"eager: {why}"
    with pytest.raises(ValueError, match=f"^graph must be False or None .* got True: {why}$"):
        sampler(graph=True).sample([0], 0)


def test_what_is_all_torch_is_captured_unasked_unless_rounds_are_watched_or_autocast() -> None:
    made, steps = frozen(Pure(4)), []
    made._graphs = Graphs(None, repeated)
    assert made.sample([0, 1], 0).report.execution == "graph"
    with torch.autocast("cpu"):
        report = made.sample([0, 1], 0).report
    assert report.execution == "eager: torch.autocast keeps weights of its own"
    report = made.sample([0, 1], 0, observer=lambda step, x: steps.append(step)).report
    assert report.execution == "eager: an observer looks at every round"
    assert steps[-1] == 30
    why = "a trajectory is kept of every round"
    assert made.sample([0, 1], 0, trajectory=True).report.execution == f"eager: {why}"
    with pytest.raises(ValueError, match=f"^graph must be False or None .* got True: {why}$"):
        graphed(made).sample([0, 1], 0, trajectory="cpu")


def test_what_cuda_refuses_is_said_and_not_tried_again() -> None:
    tries = []

    def refusing(function: Any, device: Any) -> Any:
        tries.append(function)
        raise CaptureError("CUDA could not capture a round: no")

    made = frozen(Pure(4))
    made._graphs = Graphs(None, refusing)
    for _ in range(2):
        report = made.sample([0, 1], 0).report
        assert report.execution == "eager: CUDA could not capture a round: no"
    assert len(tries) == 1


@pytest.mark.parametrize("graph", [1, "yes"])
@pytest.mark.parametrize(
    "make", [sampler, lambda graph: SequentialSampler(TEACHER, SCHEDULE, graph=graph)]
)
def test_graph_is_a_bool_or_none(make: Any, graph: Any) -> None:
    with pytest.raises(ValueError, match=f"^graph must be .* or 'compiled', got {graph!r}$"):
        make(graph=graph)
