"""The law that a diffusers pipeline is sampled with: its scheduler's own, or one asked for by name.

A scheduler whose steps are deterministic is refused, with the stochastic relatives that the same
network can be sampled with. None is put in its place in silence.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from free.arguments import shortened
from free.pipeline.scheduler import schedule_of
from free.schedule.diffusers import ddpm_config, schedule_from_config
from free.schedule.schedule import Schedule

#: Names of laws, by what the network predicts.
FLOW, NOISE = ("renoise",), ("ddpm",)


def law_of(scheduler: Any, law: Any, steps: int, *, grid: Any = None, **words: Any) -> Schedule:
    """The law of ``steps`` transitions.

    Parameters
    ----------
    scheduler : a scheduler of diffusers
        The pipeline's own.
    law : str, Schedule, callable or None
        None for the scheduler's own law; the name of another (``"renoise"``: predict x0, noise it
        anew; ``"ddpm"``); a :class:`free.Schedule`, or a function that makes one of a number of
        steps.
    steps : int
        ``num_inference_steps``.
    grid : a scheduler of diffusers, optional
        One of the same configuration whose ``set_timesteps`` has been called, with ``words`` too.
    **words
        What ``set_timesteps`` was given besides.

    Raises
    ------
    ValueError
        If the law is none that can be speculated; says what can.
    """
    if isinstance(law, Schedule) or (callable(law) and not isinstance(law, type)):
        return schedule_of(law, steps)
    kind = _kind(scheduler)
    names = FLOW if kind == "flow" else NOISE
    if law is not None and law not in names:
        raise ValueError(
            f"law must be one of {', '.join(map(repr, names))} for a network that is sampled with "
            f"{type(scheduler).__name__}, a free.Schedule, or None for the scheduler's own law, "
            f"got {shortened(law)}"
        )
    if kind == "flow":
        if law is None and not scheduler.config.stochastic_sampling:
            raise ValueError(_deterministic(scheduler, names))
        return _renoise(scheduler if grid is None else grid)
    own = {key: value for key, value in words.items() if value is not None and key != "device"}
    if own:
        raise ValueError(
            f"{', '.join(own)} must be left out for {type(scheduler).__name__} under free.enable, "
            "whose timesteps follow from its configuration and num_inference_steps"
        )
    if law == "ddpm":
        config = {**scheduler.config}
        return schedule_from_config(ddpm_config(config), steps)
    if type(scheduler).__name__ != "DDPMScheduler":
        raise ValueError(_deterministic(scheduler, names))
    return schedule_of(scheduler, steps)


def check_law(scheduler: Any, law: Any) -> None:
    """Refuse, before any run, a law that cannot be speculated; see :func:`law_of`."""
    if not isinstance(law, Schedule) and not callable(law):
        if _kind(scheduler) == "flow":
            shape = np.linspace(1.0, 0.5, 2)
            probe = type(scheduler).from_config(scheduler.config)
            probe.set_timesteps(sigmas=shape.tolist(), mu=1.0)
            law_of(scheduler, law, 2, grid=probe)
        else:
            law_of(scheduler, law, 2)


def _kind(scheduler: Any) -> str:
    """Whether the network predicts flow matching's velocity, or noise."""
    name = type(scheduler).__name__
    return "flow" if name == "FlowMatchEulerDiscreteScheduler" else "noise"


def _deterministic(scheduler: Any, names: tuple[str, ...]) -> str:
    ways = " or ".join(f"law={name!r}" for name in names)
    return (
        f"scheduler {type(scheduler).__name__} draws no noise that drafts could be coupled by, so "
        f"its law cannot be speculated: pass {ways} to free.enable to sample the same network "
        "with a stochastic law, whose images are others, or give the pipeline a DDPMScheduler "
        "with clip_sample=False or a FlowMatchEulerDiscreteScheduler with stochastic_sampling=True"
    )


def _renoise(grid: Any) -> Schedule:
    """``x' = (1 - s') x0 + s' z`` with ``x0 = x - s v``, at the noise levels of the scheduler."""
    levels = grid.sigmas.double().cpu().numpy()
    if grid.config.get("invert_sigmas") or not (np.diff(levels) < 0).all() or levels[-1] != 0:
        raise ValueError(
            "scheduler must have noise levels that fall to 0, got "
            f"{shortened(levels.tolist())} of {type(grid).__name__}"
        )
    s, after = levels[:-1], levels[1:]
    return Schedule(
        grid.timesteps.double().cpu().numpy(),
        np.zeros_like(s),
        1.0 - after,
        after,
        signal=1.0 - s,
        noise=s,
        image=np.stack([np.ones_like(s), -s]),
    )
