"""The law that an enabled pipeline is sampled with: its scheduler's own, or one that is asked for.

A scheduler whose steps are deterministic is refused, with the stochastic relatives that the same
network can be sampled with. None is put in its place in silence.
"""

from __future__ import annotations

import inspect
from typing import Any

from free.arguments import shortened
from free.pipeline.scheduler import schedule_of
from free.schedule.schedule import Schedule


def law_of(
    scheduler: Any, law: Any, steps: int, eta: float | None = None, **arguments: Any
) -> Schedule:
    """The law of so many ``steps``.

    Parameters
    ----------
    scheduler : a scheduler of diffusers
        The pipeline's own.
    law : str, Schedule, callable or None
        None for the scheduler's own law; the name of another for the same network
        (:meth:`free.Schedule.from_scheduler`); a :class:`free.Schedule`, or a function that makes
        one of a number of steps.
    steps : int
        ``num_inference_steps``.
    eta : float, optional
        How much noise, where the law leaves it open.
    **arguments
        What ``set_timesteps`` was given besides; a Schedule has its own.

    Raises
    ------
    ValueError
        If the law is none that can be speculated; says what can.
    """
    if _is_own(law):
        if eta is not None:
            raise ValueError(f"eta must be left out with a Schedule, got {shortened(eta)}")
        return schedule_of(law, steps)
    arguments = {name: value for name, value in arguments.items() if value is not None}
    arguments.pop("device", None)
    return Schedule.from_scheduler(scheduler, steps, law, eta, **arguments)


def eta_of_call(pipe: Any, law: Any, given: Any) -> Any:
    """The ``eta`` that a pipeline was called with, if the law is its scheduler's and takes one."""
    takes = "eta" in inspect.signature(pipe.scheduler.step).parameters
    return given if law is None and takes else None


def check_law(pipe: Any, law: Any, eta: Any = None) -> None:
    """Refuse, before any run, a law that cannot be speculated; see :func:`law_of`."""
    # Where a call may ask for noise, it is known when it comes whether it does.
    if eta is None and "eta" in inspect.signature(type(pipe).__call__).parameters:
        eta = eta_of_call(pipe, law, 1.0)
    if _is_own(law):
        if eta is not None:
            law_of(pipe.scheduler, law, 2, eta)
        return
    shifts = pipe.scheduler.config.get("use_dynamic_shifting", False)
    law_of(pipe.scheduler, law, 2, eta, **({"mu": 1.0} if shifts else {}))


def initial_scale(scheduler: Any, law: Any, schedule: Schedule) -> float | None:
    """By what the initial noise is multiplied; None for what the scheduler itself says."""
    if law is None:
        return None
    if _is_own(law) or schedule.input_scale is None:
        return 1.0
    # As diffusers' Euler schedulers have it, whose states are not scaled.
    spacing = scheduler.config.get("timestep_spacing", "linspace")
    if spacing in ("linspace", "trailing"):
        return float(schedule.noise[0])
    return float(1.0 / schedule.input_scale[0])


def _is_own(law: Any) -> bool:
    return isinstance(law, Schedule) or (callable(law) and not isinstance(law, type))
