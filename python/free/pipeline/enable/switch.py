"""Switching a pipeline on and off."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from torch import Tensor

from free.images.deviation import Deviation
from free.pipeline.enable.driver import PipelineDriver, driver_of
from free.pipeline.enable.figures import Summary
from free.pipeline.laws import is_own
from free.rounds.tolerance import TOLERANCE
from free.sampling.settings import check_settings
from free.schedule.schedule import Schedule

_DEFAULTS: dict[str, Any] = {
    "verifier": "reflection",
    "sweeps": 0,
    "recycle": True,
    "relaxation": None,
    "tolerance": None,
    "stochasticity": None,
}


def enable(
    pipe: Any,
    window: Any = "auto",
    law: Any = None,
    drafter: Any = "frozen",
    **settings: Any,
) -> None:
    """Make a pipeline of diffusers draw its samples in fewer rounds, with the same law.

    The pipeline's own code goes on to condition, guide and decode; each iteration of its loop is a
    round of :class:`free.SpeculativeSampler`, in which its network is asked about several steps at
    once. What exactness hangs on is checked while it runs. A pipeline that is enabled already gets
    the new settings.

    Parameters
    ----------
    pipe : diffusers.DiffusionPipeline
        One with a ``scheduler`` and one ``transformer`` or ``unet``.
    window : int, "auto" or WindowRule
        Steps of a round, at most; see :class:`free.SpeculativeSampler`. ``"auto"`` measures what
        the pipeline's calls cost and takes what pays most, or goes on step by step.
    law : str, Schedule, callable or None
        What the samples are drawn from: None for the law of ``pipe.scheduler``, else one of those
        that the same network can be sampled with, by name (:meth:`free.Schedule.from_scheduler`),
        or as a schedule of one's own.
    drafter : Drafter or "frozen"
        ``"frozen"`` needs no training.
    **settings
        ``sweeps``, ``recycle``, ``verifier``, ``relaxation`` and ``tolerance`` of
        :class:`free.SpeculativeSampler`, by default what serves a frozen drafter best; and
        ``stochasticity``, how much noise, where the law leaves it open. Of a pipeline whose
        scheduler is deterministic .01 is so little that hardly anybody sees it; with
        ``verifier="tolerance"`` it is 0, the scheduler itself.

    Raises
    ------
    TypeError
        If ``pipe`` is no such pipeline, or a setting is unknown.
    ValueError
        If the pipeline or its law cannot be speculated, or a setting is out of its range; says what
        can. While the pipeline runs, for what cannot be told before: a network that mixes rows,
        conditioning or guidance that changes on the way, latents that are changed between steps.
    """
    unknown = [name for name in settings if name not in _DEFAULTS]
    if unknown:
        raise TypeError(
            f"free.enable takes the settings {', '.join(_DEFAULTS)}, got {', '.join(unknown)}"
        )
    _require_pipeline(pipe)
    words = {"window": window, "drafter": drafter, **_DEFAULTS, **settings}
    of_sampler = {name: value for name, value in words.items() if name != "stochasticity"}
    within = words["verifier"] == TOLERANCE
    check_settings(pipe, schedule=Schedule.ddpm(4, stochasticity=float(not within)), **of_sampler)
    if not within and window != 1 and words["stochasticity"] == 0:
        raise ValueError(
            "stochasticity must be above 0 to be speculated, got 0: verifier='tolerance', "
            "tolerance=0.01 takes the scheduler as it is, not exactly"
        )
    silent = within and words["stochasticity"] is None and not is_own(law)
    if silent:
        words["stochasticity"] = 0.0  # the scheduler itself, as it is
    before = driver_of(pipe)
    if before is not None:
        before.detach()
    try:
        PipelineDriver(pipe, law, words).attach()
    except BaseException as error:
        if before is not None:
            before.attach()
        if silent and isinstance(error, ValueError):
            raise ValueError(
                f"{error}: verifier {TOLERANCE!r} needs a law without noise, as those of "
                "deterministic schedulers and law='ddim'"
            ) from error
        raise


def disable(pipe: Any) -> None:
    """Make an enabled pipeline what it was before :func:`enable`; others stay as they are."""
    driver = driver_of(pipe)
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
    """A context in which a pipeline is enabled, and after which it is what it was before.

    Parameters and errors are those of :func:`enable`.
    """
    before = driver_of(pipe)
    enable(pipe, window, law, drafter, **settings)
    try:
        yield pipe
    finally:
        disable(pipe)
        if before is not None:
            before.attach()


def summary(pipe: Any, reference: Tensor | None = None) -> Summary:
    """What the last call of an enabled pipeline took, and would have taken step by step.

    Parameters
    ----------
    pipe : diffusers.DiffusionPipeline
    reference : Tensor, optional
        Latents (``output_type="latent"``) that those of the last call are compared with, such as
        those of the pipeline's own deterministic loop, of a generator of the same seed: the summary
        then has their ``deviation``. PSNR is in units of the reference's range.

    Raises
    ------
    ValueError
        If the pipeline is not enabled, was not called since, or its last call was stopped; or the
        reference has another shape than its latents, or is not finite.
    """
    driver = driver_of(pipe)
    if driver is None:
        raise ValueError(
            f"pipe must be enabled to have a summary, got a {type(pipe).__name__} that is not: "
            "free.enable(pipe)"
        )
    if pipe.scheduler is not driver.scheduler:
        raise ValueError(
            f"pipe must have the scheduler that it was enabled with, got another, of class "
            f"{type(pipe.scheduler).__name__}: call free.enable(pipe) again"
        )
    if driver.summary is None:
        raise ValueError(
            f"pipe must have finished its last call since it was enabled, got a "
            f"{type(pipe).__name__} that was not called, or whose call was stopped"
        )
    if reference is None:
        return driver.summary
    assert driver.samples is not None
    return replace(driver.summary, deviation=Deviation.of(driver.samples, reference))


def _require_pipeline(pipe: Any) -> None:
    scheduler = getattr(pipe, "scheduler", None)
    if not (callable(pipe) and hasattr(scheduler, "set_timesteps") and hasattr(scheduler, "step")):
        raise TypeError(
            f"pipe must be a pipeline of diffusers with a scheduler, got a {type(pipe).__name__}"
        )
