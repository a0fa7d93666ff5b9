"""What a pipeline takes its steps from: schedulers of diffusers, or schedules."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

from free.schedule.diffusers import LAWS, Described, ddpm_config
from free.schedule.flow import KINDS
from free.schedule.schedule import Schedule

_EXPECTED = (
    f"scheduler must be one of {', '.join(map(repr, LAWS))}, a scheduler of diffusers or its "
    "config, a Schedule or a function that makes one"
)


def as_scheduler(scheduler: Any, own: Any = None) -> Any:
    """What is meant by a pipeline's ``scheduler``, checked: one of diffusers, Schedule or callable.

    Parameters
    ----------
    scheduler : optional
        A diffusers scheduler; the configuration of one; a :class:`free.Schedule`; a function of a
        number of steps that returns one; the name of a law for the network of ``own``, see
        :meth:`free.Schedule.from_scheduler`, where ``"ddpm"`` is DiT's sampler, and those of flow
        matching are for a SiT if there is no ``own``; or None for ``own``.
    own : optional
        The model's own scheduler, or its configuration; by default DiT's.

    Raises
    ------
    ValueError, TypeError
        If it is none of these, or its law cannot be speculated; says the way out.
    """
    if scheduler is None:
        scheduler = ddpm_config() if own is None else own
    elif isinstance(scheduler, str):
        scheduler = _named(scheduler, own)
    if isinstance(scheduler, Schedule):
        return scheduler
    if _is_described(scheduler):
        _require_known(scheduler)
        return Described.of(scheduler).instance()
    if callable(scheduler) and not isinstance(scheduler, type):
        return scheduler
    raise TypeError(f"{_EXPECTED}, got {scheduler!r}")


def schedule_of(scheduler: Any, steps: int, name: str = "scheduler") -> Schedule:
    """The schedule of ``num_inference_steps``, by what :func:`as_scheduler` returned.

    A ValueError if the scheduler has no such schedule; it is called ``name`` there.
    """
    if _is_described(scheduler):
        return Schedule.from_scheduler(scheduler, steps)
    schedule = scheduler if isinstance(scheduler, Schedule) else scheduler(steps)
    if not isinstance(schedule, Schedule):
        raise TypeError(f"{name} must return a Schedule, got {type(schedule).__name__}")
    if len(schedule) != steps:
        raise ValueError(
            f"num_inference_steps must be the {len(schedule)} steps of the {name}'s Schedule, "
            f"got {steps!r}"
        )
    return schedule


def _named(law: str, own: Any) -> Any:
    """The sampler of a name, for the network that ``own`` samples."""
    if law not in LAWS:
        raise ValueError(f"{_EXPECTED}, got {law!r}")
    if law == "ddpm":
        return ddpm_config(None if own is None else Described.of(own).config)
    if law in KINDS and own is None:
        return partial(Schedule.flow, law, train_steps=1.0)
    own = ddpm_config() if own is None else own
    _require_known(own, law)
    return partial(Schedule.from_scheduler, own, law=law)


def _require_known(scheduler: Any, law: str | None = None) -> None:
    """Refuse what cannot be speculated."""
    try:
        Schedule.from_scheduler(scheduler, 2, law)
    except ValueError as error:
        way = " (of Schedule.from_scheduler: scheduler=lambda steps: Schedule.from_scheduler(...) "
        way += "here, and scheduler=NAME for a law)"
        raise ValueError(f"{error}{way if 'law=' in str(error) else ''}") from error


def _is_described(scheduler: Any) -> bool:
    """Whether it is a scheduler of diffusers, or the configuration of one."""
    return isinstance(scheduler, Mapping) or isinstance(getattr(scheduler, "config", None), Mapping)
