"""What a pipeline takes its steps from: schedulers of diffusers, or schedules."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

import torch

from free.schedule.diffusers import ddpm_config, schedule_from_config
from free.schedule.schedule import Schedule

_EXPECTED = (
    "scheduler must be 'ddpm', a DDPMScheduler or its config, a Schedule or a function that makes "
    "one"
)


def as_scheduler(scheduler: Any, own: Any = None) -> Any:
    """What is meant by a pipeline's ``scheduler``, checked: DDPMScheduler, Schedule or callable.

    Parameters
    ----------
    scheduler : optional
        A diffusers scheduler; the configuration of one; a :class:`free.Schedule`; a function of a
        number of steps that returns one; ``"ddpm"``, DiT's sampler with the betas of ``own``; or
        None for ``own``.
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
        if scheduler != "ddpm":
            raise ValueError(f"{_EXPECTED}, got {scheduler!r}")
        scheduler = ddpm_config(_config_of(own))
    if isinstance(scheduler, Schedule):
        return scheduler
    config = _config_of(scheduler)
    if config is not None:
        schedule_from_config(config, 1)  # refuses what cannot be speculated
        if not isinstance(scheduler, Mapping):
            _require_untouched(scheduler, config)
            return scheduler
        from diffusers import DDPMScheduler

        with torch.device("cpu"):  # whatever the default is
            return DDPMScheduler.from_config(dict(config))
    if callable(scheduler) and not isinstance(scheduler, type):
        return scheduler
    raise TypeError(f"{_EXPECTED}, got {scheduler!r}")


def schedule_of(scheduler: Any, steps: int) -> Schedule:
    """The schedule of ``num_inference_steps``, by what :func:`as_scheduler` returned.

    A ValueError if the scheduler has no such schedule.
    """
    config = _config_of(scheduler)
    if config is not None:
        _require_untouched(scheduler, config)
        return schedule_from_config(config, steps)
    schedule = scheduler if isinstance(scheduler, Schedule) else scheduler(steps)
    if not isinstance(schedule, Schedule):
        raise TypeError(f"scheduler must return a Schedule, got {type(schedule).__name__}")
    if len(schedule) != steps:
        raise ValueError(
            f"num_inference_steps must be the {len(schedule)} steps of the scheduler's Schedule, "
            f"got {steps!r}"
        )
    return schedule


def _require_untouched(scheduler: Any, config: Mapping[str, Any]) -> None:
    """Refuse a scheduler whose betas were set by hand: its configuration does not tell them."""
    words = {name: value for name, value in config.items() if not name.startswith("_")}
    with torch.device("cpu"):  # whatever the default is
        made = type(scheduler)(**words)
    for name in ("betas", "alphas", "alphas_cumprod"):
        own, expected = getattr(scheduler, name), getattr(made, name)
        if not torch.equal(torch.as_tensor(own, dtype=expected.dtype, device="cpu"), expected):
            raise ValueError(
                f"scheduler must have the {name} of its config, got others, set by hand: pass "
                "DDPMScheduler.from_config(scheduler.config, trained_betas=[...])"
            )


def _config_of(scheduler: Any) -> Mapping[str, Any] | None:
    """A scheduler's configuration, if it is one of diffusers or a configuration itself."""
    if isinstance(scheduler, Mapping):
        return scheduler
    config = getattr(scheduler, "config", None)
    if not isinstance(config, Mapping):
        return None
    # from_config() keeps the words of other schedulers, which this one does not read.
    read = inspect.signature(type(scheduler).__init__).parameters
    own = {key: value for key, value in config.items() if key in read}
    return {**own, "_class_name": type(scheduler).__name__}
