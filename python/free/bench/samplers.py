"""The samplers that rows stand for, on given networks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from free.bench.rows import Row
from free.drafters.frozen import FrozenDrafter
from free.drafters.protocol import Drafter
from free.models.output import Teacher
from free.sampling.sequential import SequentialSampler
from free.sampling.speculative import SpeculativeSampler
from free.schedule.schedule import Schedule


class StepByStep:
    """A drafter that is kept from drafting whole windows in a graph of its own.

    In one sweep that is as fast as the graph, and serves windows of any width, while a graph serves
    one: a single export, with the graph that autoregression needs, does for all rows. All of the
    drafter's protocol is its own still; see :mod:`free.drafters.protocol`.
    """

    begin: Any
    predict: Any
    carry_from: Any
    change: Any
    carry_of_change: Any
    acceptance: dict[str, Any]
    config: Any  #: by which measured costs are kept

    def __init__(self, drafter: Any) -> None:
        for name in StepByStep.__annotations__:
            setattr(self, name, getattr(drafter, name))


class Networks(NamedTuple):
    """What all rows run on: the teacher, and the model's own drafter, if it has a trained one.

    ``window_drafter`` is for autoregression, ``sweep_drafter`` for sweeps.
    """

    teacher: Teacher
    window_drafter: Drafter | None = None
    sweep_drafter: Drafter | None = None


def sampler_of(
    row: Row, networks: Networks, schedule: Schedule, guidance: Mapping[str, Any]
) -> SequentialSampler | SpeculativeSampler | str:
    """The sampler, or why there is none; ``guidance`` is ``cfg_scale`` and ``cfg_channels``."""
    if row.drafter is None:
        return SequentialSampler(networks.teacher, schedule, **guidance)
    own = networks.window_drafter if row.sweeps is None else networks.sweep_drafter
    drafter: Drafter
    if row.drafter == "trained" and own is None:
        return "the model has no trained drafter"
    if row.drafter in ("own", "trained"):
        drafter = own or FrozenDrafter()
    else:
        drafter = FrozenDrafter(row.drafter)
    return SpeculativeSampler(networks.teacher, drafter, schedule, **guidance, **row.settings)
