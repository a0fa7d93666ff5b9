"""What an enabled pipeline is driven by, from call to call."""

from __future__ import annotations

import inspect
import sys
import threading
from collections.abc import Iterator
from types import FrameType
from typing import Any

import torch
from torch import Tensor

from free.arguments import shortened
from free.pipeline.enable.checks import INSTEAD
from free.pipeline.enable.figures import Summary
from free.pipeline.enable.network import Arguments, Network, find_network, refuse_caching
from free.pipeline.enable.progress import TransitionBar
from free.pipeline.enable.run import Known, PipelineRun
from free.pipeline.enable.scheduled import refuse_scheduled
from free.pipeline.enable.scheduler import enabled_scheduler
from free.pipeline.laws import asked_of_steps, check_law, initial_scale, law_of
from free.schedule.schedule import Schedule


class PipelineDriver:
    """The proxy of a pipeline's scheduler asks it for rounds, its network is listened to by it.

    Parameters
    ----------
    pipe : DiffusionPipeline
    law : str, Schedule, callable or None
    settings : dict
        ``stochasticity`` of the law; the others as :class:`free.pipeline.enable.run.PipelineRun`
        has them.
    """

    def __init__(self, pipe: Any, law: Any, settings: dict[str, Any]) -> None:
        self._settings = dict(settings)
        self._pipe, self._law_name = pipe, law
        self._stochasticity = self._settings.pop("stochasticity")
        self.real = pipe.scheduler
        self.scheduler = enabled_scheduler(self.real, self)
        self._network = Network(find_network(pipe), self._listening)
        self._law: tuple[Schedule, Tensor] | None = None
        self._run: PipelineRun | None = None
        self._thread = 0  # the one that the run is in
        self._known: dict[Any, Known] = {}
        self._previous = pipe.__dict__.get("progress_bar")
        self.initial_scale: float | None = None
        self.summary: Summary | None = None
        #: Latents of the last call that was finished, [B, ...].
        self.samples: Tensor | None = None
        check_law(pipe, law, self._stochasticity)

    @property
    def listens(self) -> bool:
        """Whether it has a network; what was copied or saved with a pipeline has none."""
        return isinstance(self._network, Network)

    def attach(self) -> None:
        """Put the proxies in their places: the pipeline's configuration does not hear of them."""
        self._pipe.__dict__["scheduler"] = self.scheduler
        self._pipe.__dict__["progress_bar"] = self._progress_bar
        self._network.attach()

    def detach(self) -> None:
        """Leave the pipeline as it was."""
        own = self._pipe.__dict__
        if own.get("scheduler") is self.scheduler:  # else somebody has set another
            own["scheduler"] = self.real
        if own.get("progress_bar") == self._progress_bar:
            del own["progress_bar"]
            if self._previous is not None:
                own["progress_bar"] = self._previous
        self._network.detach()

    def begin(self, scheduler: Any, steps: int, words: dict[str, Any]) -> Tensor:
        """See :class:`free.pipeline.enable.scheduler.Driver`."""
        if find_network(self._pipe) is not self._network.module:
            raise ValueError(
                f"{type(self._pipe).__name__} must have the network that it had when it was "
                "enabled, got another: call free.enable again"
            )
        refuse_caching(self._network.module)
        self.summary = self.samples = None  # a call that fails has none
        call = _call_of(self._pipe)  # none where the steps are set by hand
        given = call.f_locals if call else {}
        refuse_scheduled(type(self._pipe).__name__, given)
        asked = asked_of_steps(self._pipe, self._law_name, given)
        amount = self._stochasticity
        schedule = law_of(self.real, self._law_name, steps, amount, **asked, **words)
        self.initial_scale = initial_scale(self._law_name, schedule)
        own, told = scheduler.timesteps, torch.from_numpy(schedule.timesteps.copy())
        # As the pipeline knows them, but that another law's may lie between the numbers.
        between = told.is_floating_point() and not own.is_floating_point()
        timesteps = told.to(own.device, torch.float32 if between else own.dtype)
        self._law = schedule, timesteps
        return timesteps

    def rounds(self) -> Iterator[Tensor]:
        """See :class:`free.pipeline.enable.scheduler.Driver`."""
        assert self._law is not None
        name = type(self._pipe).__name__
        schedule, timesteps = self._law
        run = PipelineRun(
            self._pipe, self._network, schedule, timesteps, self._settings, self._known
        )
        self._run, self._thread = run, threading.get_ident()
        skips = _skips(self._pipe)
        try:
            for place in range(len(schedule)):
                # So that what a pipeline does by the count of its steps is seen at its own step.
                if skips and place < run.made:
                    run.skipping = self._pipe._interrupt = True
                    yield timesteps[place]
                    run.skipping = self._pipe._interrupt = False
                    continue
                yield run.next(place)
                if run.done or getattr(self._pipe, "interrupt", False):
                    return
                if run.begun and not run.stepped:  # else this loop is over the timesteps alone
                    raise ValueError(
                        f"{name} must call scheduler.step in every iteration over its timesteps, "
                        "got one without"
                    )
        finally:
            if run.skipping:
                self._pipe._interrupt = False
            if self._run is run:
                self._run = None

    def scale(self, latents: Tensor) -> Tensor:
        """See :class:`free.pipeline.enable.scheduler.Driver`."""
        return latents if self._run is None else self._run.scale(latents)

    def step(self, prediction: Tensor, latents: Tensor, generator: Any) -> Tensor:
        """See :class:`free.pipeline.enable.scheduler.Driver`."""
        run = self._run
        if run is None or run.done:
            raise ValueError(
                f"{type(self._pipe).__name__} must loop over scheduler.timesteps as they are to be "
                "speculated (not over a part of them, as from an image, or a copy), got "
                f"scheduler.step outside of such a loop: {INSTEAD}"
            )
        if not run.made:  # seeds are drawn in the first step
            generator = self._generator(generator)
        latents = run.step(prediction, latents, generator)
        if run.report is not None:
            self.samples = run.samples
            self.summary = Summary.of(
                run.report,
                pipeline=type(self._pipe).__name__,
                law=self._called(),
                network_calls=run.clock.network_calls,
                preparing=run.clock.preparing,
                plain_seconds=run.plain_seconds,
            )
        return latents

    def _generator(self, stepped: Any) -> Any:
        """What the pipeline was called with, whether it hands it to its steps or not."""
        call = _call_of(self._pipe)
        if call is None:
            raise ValueError(
                f"scheduler belongs to an enabled {type(self._pipe).__name__}, got a step outside "
                "of its calls, by hand or of another pipeline: call free.disable on it before, or "
                "use type(scheduler).from_config(scheduler.config)"
            )
        return call.f_locals.get("generator") if stepped is None else stepped

    def _listening(self) -> PipelineDriver | None:
        """Itself in a run; others may call the network meanwhile, from threads of theirs."""
        return self if self._run and self._thread == threading.get_ident() else None

    def asked(self, arguments: Arguments) -> Arguments | None:
        """See :class:`free.pipeline.enable.network.Listener`."""
        assert self._run is not None
        return self._run.asked(arguments)

    def answered(self, output: Any) -> Any:
        """See :class:`free.pipeline.enable.network.Listener`."""
        assert self._run is not None
        return self._run.answered(output)

    def _progress_bar(self, iterable: Any = None, total: int | None = None) -> Any:
        make = self._previous or type(self._pipe).progress_bar.__get__(self._pipe)
        if iterable is None:
            return TransitionBar(make(total=total), self._made)
        return TransitionBar(make(total=len(iterable)), self._made, iterable)

    def _called(self) -> str:
        law = type(self.real).__name__ if self._law_name is None else self._law_name
        if not isinstance(law, str):
            return "Schedule"
        amount = self._stochasticity
        return law if amount is None else f"{law}, stochasticity {shortened(amount)}"

    def _made(self) -> int | None:
        return None if self._run is None else self._run.made


def driver_of(pipe: Any) -> PipelineDriver | None:
    """What a pipeline is driven by; None if it is not enabled, as the copy of one is not."""
    # Not from the scheduler, which may have been replaced since.
    found = getattr(getattr(pipe, "__dict__", {}).get("progress_bar"), "__self__", None)
    return found if isinstance(found, PipelineDriver) and found.listens else None


def _skips(pipe: Any) -> bool:
    """Whether the pipeline goes to the next step at once where it is interrupted."""
    call = inspect.unwrap(type(pipe).__call__)
    names = getattr(getattr(call, "__code__", None), "co_names", ())
    return "interrupt" in names and hasattr(pipe, "_interrupt")


def _call_of(pipe: Any) -> FrameType | None:
    """The frame of the pipeline's call that is under way; None if there is none.

    Most pipelines draw the initial latents from their ``generator`` and do not hand it to
    ``scheduler.step``, so there is no other way to it.
    """
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        if frame.f_code.co_name == "__call__" and frame.f_locals.get("self") is pipe:
            return frame
        frame = frame.f_back
    return None
