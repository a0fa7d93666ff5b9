"""One call of an enabled pipeline: its loop makes the rounds, its network is their teacher."""

from __future__ import annotations

import time
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from free.pipeline.enable import checks
from free.pipeline.enable.drawing import Drawing
from free.pipeline.enable.network import Arguments, Network
from free.pipeline.enable.recognise import Recognised
from free.rounds.report import Report
from free.schedule.schedule import Schedule


@dataclass
class Known:
    """What is found out once of calls of the same shapes.

    ``plain`` are the seconds of the network in a step of one row a sample, at least;
    ``independent`` says that its rows are known not to depend on each other.
    """

    plain: float
    independent: bool = False


@dataclass
class Clock:
    """Where a call's time goes, and how often the network is called.

    ``network_calls`` are all of them; ``preparing`` are the seconds of checks and measurements that
    later calls of the same shapes do without.
    """

    started: float = field(default_factory=time.perf_counter)
    network_calls: int = 0
    preparing: float = 0.0


class PipelineRun:
    """One call: what its loop is told, what its network is asked, what its steps return.

    Parameters
    ----------
    pipe : DiffusionPipeline
    network : Network
    schedule : Schedule
    timesteps : Tensor, shape [N]
        Those of the schedule, as the pipeline is told them.
    settings : dict
        Of :class:`free.SpeculativeSampler`: window, drafter, verifier, sweeps, recycle, relaxation,
        tolerance.
    known : dict
        Of former calls, by the shapes of what the network was given; added to.
    """

    def __init__(
        self,
        pipe: Any,
        network: Network,
        schedule: Schedule,
        timesteps: Tensor,
        settings: dict[str, Any],
        known: dict[Any, Known],
    ) -> None:
        self._name = type(pipe).__name__
        self._pipe, self._network = pipe, network
        self._schedule, self._timesteps = schedule, timesteps
        self._settings, self._all_known = settings, known
        self._asked: list[tuple[Arguments, Any]] = []
        self._step: Recognised | None = None
        self._drawing: Drawing | None = None
        self._at = 0  # calls of the network in this round
        self._place, self._nominal = 0, timesteps[0]
        self._phase = ExitStack()
        self._told = 0.0
        self.clock = Clock()
        self.stepped = self.done = False
        #: Whether the pipeline is to pass by a step that all samples have behind them.
        self.skipping = False
        self.report: Report | None = None

    @property
    def begun(self) -> bool:
        """Whether the pipeline has called its network."""
        return bool(self._asked) or self._step is not None

    @property
    def made(self) -> int:
        """Transitions that the slowest sample has made."""
        return 0 if self._drawing is None else self._drawing.made

    @property
    def samples(self) -> Tensor | None:
        """Current states, [B, ...]; from the first round on."""
        return None if self._drawing is None else self._drawing.states

    @property
    def plain_seconds(self) -> float:
        """Seconds of the network in a step of one row a sample; from the first round on."""
        return self._known.plain

    def next(self, place: int) -> Tensor:
        """The timestep that the pipeline is told next: that of the furthest row of the round.

        Before the network was ever called it is that of ``place``: the loop may be another one.
        At the furthest row, because guidance or conditioning that changes on the way shows there
        first.
        """
        self._at, self.stepped, self._place = 0, False, place
        if self._drawing is not None:
            self._place = int(self._drawing.window.steps.max())
            self._phase.enter_context(self._drawing.recorder.phase("teacher"))
        self._nominal = self._timesteps[self._place]
        self._told = time.perf_counter()
        return self._nominal

    def scale(self, latents: Tensor) -> Tensor:
        """What the network is given of latents: in the first round what its step asks for, later
        as they are, as the rows of a round are of other steps.
        """
        if self._drawing is not None or self._schedule.input_scale is None:
            return latents
        return latents * float(self._schedule.input_scale[0])

    def asked(self, arguments: Arguments) -> Arguments | None:
        """See :class:`free.pipeline.enable.network.Listener`."""
        self.clock.network_calls += 1
        if self.skipping:
            raise ValueError(
                f"{self._name} must pass by steps where pipe.interrupt is set, got a call of its "
                f"{self._network.kind}"
            )
        if self._drawing is None or self._step is None:
            if self._place:
                raise ValueError(
                    f"{self._name} must call its {self._network.kind} from the first timestep on, "
                    f"got a first call at {float(self._nominal):g}"
                )
            self._asked.append((arguments, None))
            return None
        if self._at == len(self._step.calls):
            raise self._changed("more")
        window = self._drawing.window
        return self._step.calls[self._at].expand(
            arguments,
            self._given,
            self._nominal,
            (window.x, self._drawing.timesteps(window.steps), window.y),
        )

    def answered(self, output: Any) -> Any:
        """See :class:`free.pipeline.enable.network.Listener`."""
        if self._drawing is None or self._step is None:
            self._asked[-1] = (self._asked[-1][0], output)
            return output
        window, call = self._drawing.window, self._step.calls[self._at]
        self._at += 1
        rows = len(window.x)
        if rows > self._step.samples and not self._known.independent:
            began = time.perf_counter()
            last = slice(rows - 1, rows)  # its time is another than the first one's
            timesteps = self._drawing.timesteps(window.steps[last])
            alone = call.ask(window.x[last], timesteps, window.y[last])
            self.clock.network_calls += 1
            among = call.row(output, rows, rows - 1)
            checks.require_rows_alone(alone, among, self._network.kind)
            self.clock.preparing += time.perf_counter() - began
        return call.with_sentinel(output, window.y)

    @torch.no_grad()
    def step(self, prediction: Tensor, latents: Tensor, generator: Any) -> Tensor:
        """End a round; see :class:`free.pipeline.enable.scheduler.Driver`."""
        if self._drawing is None or self._step is None:
            if latents.device.type == "cuda":
                torch.cuda.synchronize(latents.device)
            spent = time.perf_counter() - self._told
            step = Recognised.of(
                self._pipe,
                self._network,
                self._asked,
                timestep=self._nominal,
                prediction=prediction,
                latents=latents,
                scaled=self.scale(latents),
            )
            self._known = self._learned(step, spent)
            self._asked = []
            drawing = Drawing(
                step,
                self._network,
                self._schedule,
                self._timesteps,
                settings=self._settings,
                generator=generator,
            )
            self.clock.preparing += drawing.preparing
            drawing.recorder.phase("teacher")
            drawing.recorder.report.seconds_by_phase["teacher"] += spent
            self._step, self._drawing, prediction = step, drawing, step.prediction
        else:
            step, drawing = self._step, self._drawing
            if self._at < len(step.calls):
                raise self._changed("fewer")
            owner = drawing.window.y
            prediction, again = step.split(prediction, owner, self._name)
            checks.require_row_local(again, step.prediction[:1], self._name)
            self._phase.close()  # having waited for the network
            self._known.independent |= len(owner) > step.samples
        self.done, self.stepped = drawing.finish_round(prediction), True
        if self.done:
            self.report = drawing.report()
            self.report.seconds = time.perf_counter() - self.clock.started
        self._given = drawing.states.to(latents.dtype)
        return torch.cat([self._given] * step.copies)  # never what is compared with later

    def _learned(self, step: Recognised, spent: float) -> Known:
        """What is known of calls of these shapes; ``spent`` seconds were the network's."""
        device = step.latents.device
        shapes = str([call.shapes for call in step.calls])
        cast = torch.is_autocast_enabled(device.type)
        module = self._network.module
        training = any(part.training for part in module.modules())  # dropout, batch statistics
        key = (id(module), step.samples, shapes, cast, training)
        known = self._all_known.get(key)
        if known is not None:
            known.plain = min(known.plain, spent)
            return known
        began = time.perf_counter()
        again = [call.repeat() for call in step.calls]
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        seconds = time.perf_counter() - began
        self.clock.network_calls += len(again)
        for (_, first), second in zip(self._asked, again, strict=True):
            checks.require_repeatable(first, second, self._network.kind)
        self.clock.preparing += time.perf_counter() - began
        # The first call ever may have compiled, or allocated: it does not count.
        return self._all_known.setdefault(key, Known(seconds))

    def _changed(self, how: str) -> ValueError:
        return ValueError(
            f"{self._name} must call its {self._network.kind} equally often in every step, got "
            f"{how} calls than in the first: guidance that is switched on or off on the way cannot "
            f"be speculated here: leave it out, or {checks.INSTEAD}"
        )
