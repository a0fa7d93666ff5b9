"""Switching a pipeline on and off."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from free.pipeline.enable.driver import PipelineDriver
from free.pipeline.enable.figures import Summary
from free.sampling.settings import check_settings
from free.schedule.schedule import Schedule

_DEFAULTS: dict[str, Any] = {
    "verifier": "reflection",
    "sweeps": 1,
    "recycle": True,
    "relaxation": None,
}


def enable(
    pipe: Any,
    window: Any = "auto",
    law: Any = None,
    drafter: Any = "frozen",
    **settings: Any,
) -> None:
    """Make a diffusers pipeline draw its samples by speculation, with the same law."""
    unknown = [name for name in settings if name not in _DEFAULTS]
    if unknown:
        raise TypeError(
            f"free.enable takes the settings {', '.join(_DEFAULTS)}, got {', '.join(unknown)}"
        )
    _require_pipeline(pipe)
    words = {"window": window, "drafter": drafter, **_DEFAULTS, **settings}
    check_settings(pipe, schedule=Schedule.ddpm(4), **words)
    before = _driver(pipe)
    if before is not None:
        before.detach()
    try:
        driver = PipelineDriver(pipe, law, words)
    except BaseException:
        if before is not None:
            before.attach()
        raise
    driver.attach()


def disable(pipe: Any) -> None:
    """Make an enabled pipeline what it was before :func:`enable`; others stay as they are."""
    driver = _driver(pipe)
    if driver is not None:
        driver.detach()


@contextmanager
def enabled(
    pipe: Any,
    window: Any = "auto",
    law: Any = None,
    drafter: Any = "frozen",
    **settings: Any,
) -> Iterator[Any]:
    """A context in which a pipeline is enabled; see :func:`enable` for parameters and errors."""
    enable(pipe, window, law, drafter, **settings)
    try:
        yield pipe
    finally:
        disable(pipe)


def summary(pipe: Any) -> Summary:
    """What the last call of an enabled pipeline took, and would have taken step by step."""
    driver = _driver(pipe)
    if driver is None:
        raise ValueError(f"pipe must be enabled, got a {type(pipe).__name__} that is not")
    if driver.summary is None:
        raise ValueError(f"{type(pipe).__name__} must have been called since it was enabled")
    return driver.summary


def _driver(pipe: Any) -> PipelineDriver | None:
    return getattr(getattr(pipe, "scheduler", None), "driver", None)


def _require_pipeline(pipe: Any) -> None:
    scheduler = getattr(pipe, "scheduler", None)
    if not (callable(pipe) and hasattr(scheduler, "set_timesteps") and hasattr(scheduler, "step")):
        raise TypeError(
            f"pipe must be a pipeline of diffusers with a scheduler, got {type(pipe).__name__}"
        )
