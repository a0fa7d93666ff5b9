"""What a run is made of, put together in one place for every sampler and graph."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch

from free.drafters.protocol import Drafter, DraftingBatch
from free.models.guidance import Guidance
from free.models.output import Teacher
from free.rounds.relaxation import Relaxation, Spending
from free.rounds.round import Phase, Rounds, no_phase
from free.rounds.row_selection import RowSelector, WantedRows
from free.rounds.target import Target
from free.rounds.tolerance import TOLERANCE, Leeway
from free.schedule.schedule import Schedule
from free.schedule.table import Table
from free.window import FixedWindow, WindowRule


@dataclass(frozen=True, eq=False, kw_only=True)
class Plan:
    """How a sampler draws: checked arguments of :class:`free.SpeculativeSampler`; see there.

    By default it is the plain sampler. ``rule`` says how wide windows are.
    """

    teacher: Teacher
    schedule: Schedule
    guidance: Guidance | None
    drafter: Drafter | None = None
    rule: WindowRule = field(default_factory=lambda: FixedWindow(1))
    verifier: str = "reflection"
    sweeps: int | str | None = None
    recycle: bool | str = False
    relaxation: Relaxation | None = None
    tolerance: float | None = None


def assemble(
    plan: Plan,
    samples: int,
    device: torch.device,
    *,
    width: int,
    rows: RowSelector | None = None,
    phase: Phase = no_phase,
    combines: bool = True,
    blind: bool = True,
) -> Rounds:
    """Put together the rounds of a run of B ``samples`` in windows of at most ``width`` rows.

    The states are on ``device``. Within a tolerance the first window is as wide as the others,
    unless it must not be drafted ``blind``. For ``rows`` and ``phase`` see
    :class:`free.rounds.round.Rounds`.
    """
    table = Table.of(plan.schedule, device)
    spending: Spending | None = None
    if plan.relaxation is not None:
        spending = Spending(plan.relaxation, plan.schedule, samples, device)
    leeway: Leeway | None = None
    if plan.verifier == TOLERANCE and width > 1:
        assert plan.tolerance is not None
        leeway = Leeway(plan.tolerance, table, samples, device)
    return Rounds(
        target=Target(
            plan.teacher,
            plan.guidance,
            table,
            combines=combines,
        ),
        table=table,
        width=width,
        drafter=_begun(plan, table) if width > 1 else None,
        verifier=plan.verifier,
        recycle=plan.recycle,
        sweeps=None if isinstance(plan.sweeps, str) else plan.sweeps,
        spending=spending,
        leeway=leeway,
        blind=blind and leeway is not None,
        rows=rows or WantedRows(),
        phase=phase,
    )


def _begun(plan: Plan, table: Table) -> Drafter | None:
    """What drafts for a run by the plan's drafter, if there is one."""
    if plan.drafter is None:
        return None
    begun = plan.drafter.begin(DraftingBatch(table, plan.guidance))
    return plan.drafter if begun is None else begun
