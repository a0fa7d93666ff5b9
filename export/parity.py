"""Whether an engine computes what torch computes, and what the difference costs."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from free.drafters.feature import FeatureDrafter
from free.drafters.protocol import Drafter
from free.engines.interface import Session
from free.engines.manifest import Manifest
from free.engines.networks import EngineTeacher
from free.engines.torch import TorchSession
from free.export.package import graphs_of
from free.models.dit import DiT
from free.models.guidance import Guidance, GuidedTeacher
from free.models.output import Teacher
from free.sampling.speculative import SpeculativeSampler
from free.schedule.schedule import Schedule
from free.schedule.table import Table

#: Largest error of a graph, relative to the output's root mean square, by precision.
TOLERANCE = {"fp32": 1e-4, "fp16": 2e-2, "bf16": 1e-1}


@dataclasses.dataclass(frozen=True)
class Corner:
    """Error of one graph at one corner of its profile.

    Attributes
    ----------
    graph : str
    sizes : dict of str to int
    largest, relative : float
        Largest difference of any output from torch in float32; and relative to the root mean
        square of that output.
    """

    graph: str
    sizes: dict[str, int]
    largest: float
    relative: float


@dataclasses.dataclass(frozen=True)
class Agreement:
    """Equal seeds sampled on torch in float32 and on an engine.

    Attributes
    ----------
    images : int
    identical : float
        Share of rounds whose decisions are the same, up to and with each sample's first that
        is not.
    efficiency, efficiency_engine : float
        Transitions a round.
    delta_shift : float
        By how many sigma the engine moves a transition's mean, on average over torch's
        trajectory: ``|b| |eps_engine - eps| / sigma``. What two teachers so far apart would
        reject of each other's transitions is about ``0.4 delta_shift``.
    largest : float
        Largest difference between samples whose decisions were all the same; NaN if there
        were none.
    """

    images: int
    identical: float
    efficiency: float
    efficiency_engine: float
    delta_shift: float
    largest: float


def check_graphs(
    teacher: DiT,
    drafter: FeatureDrafter | None,
    manifest: Manifest,
    sessions: dict[str, Session],
    seed: int = 0,
) -> list[Corner]:
    """Compare every graph with torch in float32, at every corner of its profile.

    Parameters
    ----------
    teacher, drafter
        The exported model, in float32.
    manifest : Manifest
    sessions : dict of str to Session
        The graphs on the engine.
    seed : int
        Of the random inputs.
    """
    corners = []
    graphs = graphs_of(teacher, drafter, manifest.window, manifest.sweeps, manifest.max_batch)
    for graph, contract in graphs:
        if contract.graph not in sessions:
            continue
        reference = TorchSession(graph, contract)
        for sizes in contract.corners():
            inputs = contract.sample_inputs(sizes, seed)
            if "settled" in inputs:
                inputs["settled"] = inputs["settled"].long().cumprod(1).bool()  # a prefix
            expected = reference.run(inputs)
            session = sessions[contract.graph]
            got = session.run({name: value.to(session.device) for name, value in inputs.items()})
            errors = [_error(got[name].cpu(), expected[name]) for name in expected]
            largest, relative = (max(column) for column in zip(*errors, strict=True))
            corners.append(Corner(contract.graph, sizes, largest, relative))
    return corners


def check_sampling(
    teacher: DiT,
    drafter: Drafter,
    engine_teacher: EngineTeacher,
    engine_drafter: Drafter,
    *,
    settings: dict[str, Any],
    schedule: Schedule,
    labels: Sequence[int],
    cfg_scale: float = 1.5,
    seed: int = 0,
) -> Agreement:
    """Sample the same seeds on torch and on an engine.

    Parameters
    ----------
    teacher, drafter
        On torch, in float32.
    engine_teacher, engine_drafter
        On the engine.
    settings : dict
        ``window``, ``sweeps`` and ``recycle``.
    schedule : Schedule
    labels : sequence of int
        Drawn one by one.
    cfg_scale : float
    seed : int
        Sample ``i`` has ``seed + i``.
    """
    reference, engine = (
        SpeculativeSampler(network, guesses, schedule, cfg_scale=cfg_scale, **settings)
        for network, guesses in ((teacher, drafter), (engine_teacher, engine_drafter))
    )
    same = rounds = rounds_engine = compared = 0
    largest = -math.inf
    states: list[tuple[Tensor, int, int]] = []
    for i, label in enumerate(labels):
        sample, path = _followed(reference, label, seed + i)
        other, path_engine = _followed(engine, label, seed + i)
        states += [(x, k, label) for x, k in path if k < len(schedule) - 1]
        steps, steps_engine = [k for _, k in path], [k for _, k in path_engine]
        pairs = zip(steps, steps_engine, strict=False)
        agreed = len(list(itertools.takewhile(lambda pair: pair[0] == pair[1], pairs)))
        if steps == steps_engine:
            largest = max(largest, float((sample - other).abs().max()))
        same += agreed
        compared += agreed + (steps != steps_engine)
        rounds += len(steps)
        rounds_engine += len(steps_engine)
    transitions = len(labels) * len(schedule)
    return Agreement(
        images=len(labels),
        identical=same / compared,
        efficiency=transitions / rounds,
        efficiency_engine=transitions / rounds_engine,
        delta_shift=_delta_shift(teacher, engine_teacher, states, schedule, cfg_scale),
        largest=largest if math.isfinite(largest) else math.nan,
    )


def _followed(
    sampler: SpeculativeSampler, label: int, seed: int
) -> tuple[Tensor, list[tuple[Tensor, int]]]:
    """A sample, and its state and transition after each round."""
    path: list[tuple[Tensor, int]] = []
    with torch.autocast("cpu", enabled=False):  # in float32, whatever the caller's
        result = sampler.sample(
            [label], seed, observer=lambda k, x: path.append((x[0].cpu().clone(), k))
        )
    return result.samples.cpu(), path


def _delta_shift(
    teacher: DiT,
    engine: EngineTeacher,
    states: list[tuple[Tensor, int, int]],
    schedule: Schedule,
    cfg_scale: float,
) -> float:
    """See :class:`Agreement`; over states with their transitions and labels."""
    on_torch: Teacher = teacher
    on_engine: Teacher = engine
    if cfg_scale != 1.0:
        guidance = Guidance(cfg_scale, None, teacher.null_label)
        on_torch, on_engine = GuidedTeacher(teacher, guidance), engine.guided(guidance)
    shifts, table = [], Table.of(schedule, "cpu")
    for x, k, label in states:
        x, t = x[None], table.time(torch.full((1,), k, dtype=torch.int64, device="cpu"))
        y = torch.tensor([label], dtype=torch.int64, device="cpu")
        with torch.no_grad(), torch.autocast("cpu", enabled=False):
            expected = on_torch(x, t, y).eps
        there = engine.device
        got = on_engine(x.to(there), t.to(there), y.to(there)).eps.cpu()
        scale = abs(float(table.of_prediction[k])) / float(schedule.sigma[k])
        shifts.append(scale * float((got - expected).norm()))
    return sum(shifts) / len(shifts)


def _error(got: Tensor, expected: Tensor) -> tuple[float, float]:
    """Largest difference; and the same over the root mean square of ``expected``."""
    largest = float((got.double() - expected.double()).abs().max())
    if math.isnan(largest):  # which would compare as no error at all
        return math.inf, math.inf
    scale = float(expected.double().square().mean().sqrt())
    return largest, largest / scale if scale > 0 else math.inf if largest else 0.0


def parity_record(corners: list[Corner], agreement: Agreement, tolerance: float) -> dict[str, Any]:
    """All results as JSON values; what is not finite becomes null."""
    return {
        "tolerance": tolerance,
        "graphs": [_finite(dataclasses.asdict(corner)) for corner in corners],
        "sampling": _finite(dataclasses.asdict(agreement)),
    }


def _finite(record: dict[str, Any]) -> dict[str, Any]:
    return {
        name: None if isinstance(value, float) and not math.isfinite(value) else value
        for name, value in record.items()
    }
