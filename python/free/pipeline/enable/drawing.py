"""The rounds of a pipeline's call, made of what its first step told."""

from __future__ import annotations

import time
from collections.abc import Generator
from numbers import Integral
from typing import Any

import torch
from torch import Tensor

from free.devices import require_device
from free.models.output import TeacherOutput
from free.pipeline.arguments import seeds as seeds_of
from free.pipeline.enable.costs import NetworkCosts
from free.pipeline.enable.network import Network
from free.pipeline.enable.recognise import Recognised
from free.rounds.report import Recorder, Report
from free.rounds.round import Rounds
from free.rounds.state import Window
from free.sampling.assembly import Plan, assemble
from free.sampling.loop import drawing
from free.sampling.settings import check_settings, largest_window
from free.schedule.schedule import Schedule
from free.window.rule import Run


class Drawing:
    """The rounds of a call, from its first step on.

    Parameters are those of :class:`free.pipeline.enable.run.PipelineRun`; ``step`` is what was
    recognised in the first one, ``generator`` what the pipeline was called with.
    """

    def __init__(
        self,
        step: Recognised,
        network: Network,
        schedule: Schedule,
        timesteps: Tensor,
        *,
        settings: dict[str, Any],
        generator: Any,
    ) -> None:
        x = step.latents.float().clone(memory_format=torch.contiguous_format)
        #: Current states of all samples, [B, ...], and transitions that the slowest has made.
        self.states, self.made = x, 0
        self._timesteps, device = timesteps, x.device
        checked = check_settings(network.module, schedule=schedule, **settings)
        require_device(device, variance=schedule.mixture)
        width = largest_window(checked.rule, len(schedule), device)
        plan = Plan(
            teacher=network.module,
            schedule=schedule,
            guidance=None,
            drafter=checked.drafter,
            rule=checked.rule,
            verifier=settings["verifier"],
            sweeps=settings["sweeps"],
            recycle=settings["recycle"],
            relaxation=settings["relaxation"],
            tolerance=settings["tolerance"],
        )
        learns = not isinstance(settings["window"], Integral)
        seeds = torch.tensor(
            _seeds(generator, step.samples, distinct=learns), dtype=torch.int64, device=device
        )
        self.recorder = Recorder(len(schedule), seeds, "eager: in the loop of a pipeline")
        rounds: Rounds = assemble(
            plan, step.samples, device, width=width, phase=self.recorder.phase, blind=False
        )  # the first step is the pipeline's own
        owner = torch.arange(step.samples, device=device)
        stand_in = NetworkCosts(network, step.calls, self.timesteps)
        began = time.perf_counter()
        windows = checked.rule.begin(
            Run(
                model=stand_in,  # type: ignore[arg-type]
                target=stand_in,  # type: ignore[arg-type]
                guided=False,
                drafter=rounds.drafter,
                owner=checked.drafter,
                table=rounds.table,
                labels=owner,
                seeds=seeds,
                state=x,
                sweeps=settings["sweeps"],
                verifier=settings["verifier"],
            )
        )
        #: Seconds that measuring what calls cost has taken.
        self.preparing = time.perf_counter() - began
        self._rounds = rounds
        # A sample's label is its place among the pipeline's: rows carry it along.
        samples = rounds.begin(owner, seeds, x)
        self._loop: Generator[Window, TeacherOutput, Tensor] = drawing(
            rounds, samples, windows, self.recorder, progress=None, observer=self._observe
        )
        self.window = next(self._loop)

    def finish_round(self, prediction: Tensor) -> bool:
        """Verify by what the pipeline predicts of the window's rows; whether all are done."""
        try:
            self.window = self._loop.send(TeacherOutput(prediction))
        except StopIteration as finished:
            self.states = finished.value
            return True
        return False

    def timesteps(self, steps: Tensor) -> Tensor:
        """What the pipeline is told the time is at these transitions."""
        return self._timesteps[steps.to(self._timesteps.device)]

    def report(self) -> Report:
        """What was done, once all are."""
        if (spending := self._rounds.spending) is not None:
            self.recorder.relaxed(spending.spent, spending.log_likelihood)
        if self._rounds.leeway is not None:
            self.recorder.deviated(self._rounds.leeway.estimate)
        return self.recorder.finish()

    def _observe(self, made: int, states: Tensor) -> None:
        self.made, self.states = made, states


def _seeds(generator: Any, count: int, *, distinct: bool) -> list[int]:
    """A seed for each of ``count`` samples, of the generators of a pipeline's call.

    Where they must be ``distinct``, generators in the same state are asked again: a sample ahead
    of another with its noise would tell that one's window about it.
    """
    several = isinstance(generator, (list, tuple))
    if several and len(generator) == 1:  # one serves all, as in diffusers
        generator, several = generator[0], False
    drawn: list[int] = []
    for place, first in enumerate(seeds_of(generator, count)):
        seed = first
        while distinct and seed in drawn:
            seed = seeds_of(generator[place] if several else generator, 1)[0]
        drawn.append(seed)
    return drawn
