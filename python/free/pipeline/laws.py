"""The law that an enabled pipeline is sampled with: its scheduler's own, or one that is asked for.

A scheduler whose steps are deterministic is refused, with the stochastic relatives that the same
network can be sampled with. None is put in its place in silence.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from free.arguments import shortened
from free.pipeline.scheduler import schedule_of
from free.schedule.schedule import Schedule

#: Arguments of pipelines that are handed to each step, and belong to the law.
OF_STEPS = ("eta", "use_clipped_model_output")


def law_of(
    scheduler: Any, law: Any, steps: int, stochasticity: Any = None, **arguments: Any
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
    stochasticity : float or array_like of float, shape [steps], optional
        How much noise, where the law leaves it open, as that of a deterministic scheduler does.
    **arguments
        What ``set_timesteps`` was given besides, and ``eta`` and ``use_clipped_model_output`` of a
        ``DDIMScheduler``; a Schedule has its own.

    Raises
    ------
    ValueError
        If the law is none that can be speculated; says what can.
    """
    if is_own(law):
        if stochasticity is not None:
            raise ValueError(
                "stochasticity must be left out with a Schedule, which has its own, "
                f"got {shortened(stochasticity)}"
            )
        return schedule_of(law, steps, "law")
    arguments = {name: value for name, value in arguments.items() if value is not None}
    arguments.pop("device", None)
    try:
        return Schedule.from_scheduler(scheduler, steps, law, stochasticity, **arguments)
    except ValueError as error:
        raise ValueError(f"{error}{_as_asked_here(str(error))}") from error


def _as_asked_here(refusal: str) -> str:
    """What to type on a pipeline instead of what :class:`free.Schedule` advises."""
    advised = re.search(r"pass ((?:law='\w+', )?stochasticity=[\d.]+)", refusal)
    return "" if advised is None else f". Of a pipeline: free.enable(pipe, {advised[1]})"


def asked_of_steps(pipe: Any, law: Any, given: Mapping[str, Any]) -> dict[str, Any]:
    """What a pipeline's call, ``given`` these arguments, asks of every step of its scheduler."""
    if law is not None:
        return {}
    takes = inspect.signature(pipe.scheduler.step).parameters
    return {name: given[name] for name in OF_STEPS if name in takes and name in given}


def check_law(pipe: Any, law: Any, stochasticity: Any = None) -> None:
    """Refuse, before any run, a law that cannot be speculated; see :func:`law_of`."""
    if is_own(law):
        if stochasticity is not None:
            law_of(pipe.scheduler, law, 2, stochasticity)
        return
    # What a call may ask for is known when it comes: here, that it asks for what serves.
    takes = inspect.signature(type(pipe).__call__).parameters
    asked = asked_of_steps(pipe, law, {name: True for name in OF_STEPS if name in takes})
    if "eta" in asked:
        asked["eta"] = 1.0 if stochasticity is None else 0.0
    steps = 2 if not np.ndim(stochasticity) else len(stochasticity)
    law_of(pipe.scheduler, law, steps, stochasticity, **asked, **dynamic_shift(pipe))


def dynamic_shift(pipe: Any) -> dict[str, float]:
    """What ``set_timesteps`` must be given where a shift depends on the images' size: some size."""
    return {"mu": 1.0} if pipe.scheduler.config.get("use_dynamic_shifting", False) else {}


def initial_scale(law: Any, schedule: Schedule) -> float | None:
    """By what the initial noise is multiplied; None for what the scheduler itself says."""
    return None if law is None else schedule.start


def is_own(law: Any) -> bool:
    """Whether a law is a schedule of the caller's own, or makes one."""
    return isinstance(law, Schedule) or (callable(law) and not isinstance(law, type))
