"""The samplers that rows stand for, all on the same networks."""

from __future__ import annotations

from typing import Any, NamedTuple

from torch import Tensor

from free.bench.rows import Row
from free.drafters.frozen import FrozenDrafter
from free.drafters.protocol import Drafter, DraftingBatch
from free.models.output import Teacher, TeacherRows
from free.sampling.sequential import SequentialSampler
from free.sampling.speculative import SpeculativeSampler
from free.schedule.schedule import Schedule

__all__ = ["Networks", "StepByStep", "sampler_of"]

#: Fewer steps than a schedule can have.
_FEWEST = 2


class StepByStep:
    """A drafter that is kept from drafting whole windows in a graph of its own.

    In one sweep that is as fast as the graph, and serves windows of any width, while a graph serves
    one: a single export, with the graph that autoregression needs, does for all rows.

    Parameters
    ----------
    drafter : ChangeDrafter
    """

    def __init__(self, drafter: Any) -> None:
        self._drafter = drafter
        self.acceptance: dict[str, Any] = drafter.acceptance
        self.config = drafter.config  # by which measured costs are kept

    def begin(self, batch: DraftingBatch) -> None:
        """As the drafter's."""
        self._drafter.begin(batch)

    def predict(self, x: Tensor, k: Tensor, y: Tensor, carry: Any) -> tuple[Tensor, Any]:
        """As the drafter's."""
        return self._drafter.predict(x, k, y, carry)

    def carry_from(self, teacher_output: TeacherRows, rows: Tensor) -> Any:
        """As the drafter's."""
        return self._drafter.carry_from(teacher_output, rows)

    def change(
        self, x: Tensor, mean: Tensor, k: Tensor, y: Tensor, carry: Any
    ) -> tuple[Tensor, Any]:
        """As the drafter's."""
        return self._drafter.change(x, mean, k, y, carry)

    def carry_of_change(self, teacher_output: TeacherRows, rows: Tensor) -> Any:
        """As the drafter's."""
        return self._drafter.carry_of_change(teacher_output, rows)


class Networks(NamedTuple):
    """What all rows run on.

    Attributes
    ----------
    teacher : callable
    window_drafter : Drafter or None
        The model's own, for autoregression; None if it has none.
    sweep_drafter : Drafter or None
        The same for sweeps.
    """

    teacher: Teacher
    window_drafter: Drafter | None = None
    sweep_drafter: Drafter | None = None


def sampler_of(
    row: Row, networks: Networks, steps: int, cfg: float, cfg_channels: int | None
) -> SequentialSampler | SpeculativeSampler | str:
    """The sampler, or why there is none.

    Parameters
    ----------
    row : Row
    networks : Networks
    steps : int
        N.
    cfg : float
    cfg_channels : int or None
    """
    if steps // row.part < _FEWEST:
        return f"{steps} / {row.part} steps are fewer than {_FEWEST}"
    schedule = Schedule.ddpm(steps // row.part, stochasticity=row.stochasticity)
    if row.drafter is None:
        return SequentialSampler(networks.teacher, schedule, cfg, cfg_channels)
    drafter: Drafter | None
    if row.drafter == "trained":
        drafter = networks.window_drafter if row.sweeps is None else networks.sweep_drafter
        if drafter is None:
            return "the model has no trained drafter"
    else:
        drafter = FrozenDrafter(row.drafter)
    return SpeculativeSampler(
        networks.teacher,
        drafter,
        schedule,
        cfg_scale=cfg,
        cfg_channels=cfg_channels,
        **row.settings,
    )
