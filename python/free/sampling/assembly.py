"""What a run is made of, put together in one place for every sampler and graph."""

from __future__ import annotations

from typing import NamedTuple

from free.drafters.protocol import Drafter
from free.models.guidance import Guidance
from free.models.output import Teacher
from free.rounds.relaxation import Relaxation
from free.schedule.schedule import Schedule

__all__ = [
    "Way",
]


class Way(NamedTuple):
    """How a sampler draws; the fields are its arguments.

    Attributes
    ----------
    window : int or None
        None where it is chosen anew in every round.
    """

    teacher: Teacher
    schedule: Schedule
    guidance: Guidance | None
    drafter: Drafter | None = None
    window: int | None = 1
    verifier: str = "reflection"
    sweeps: int | None = None
    recycle: bool | str = False
    relaxation: Relaxation | None = None
