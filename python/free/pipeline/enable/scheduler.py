"""The scheduler that an enabled pipeline sees: its own, but that a step is a round."""

from __future__ import annotations

import copy
import functools
import inspect
from collections.abc import Callable, Iterator
from typing import Any, Protocol

import torch
from torch import Tensor

from free.arguments import shortened
from free.pipeline.laws import OF_STEPS

#: Arguments of ``step`` that are known of; some belong to the law, and were known before.
_UNDERSTOOD = {"model_output", "timestep", "sample", "generator", "return_dict", *OF_STEPS}


class Driver(Protocol):
    """Who draws the samples while the pipeline loops.

    ``initial_scale`` is by what the law multiplies the initial noise; None leaves it to the
    scheduler.
    """

    initial_scale: float | None

    def begin(self, scheduler: Any, steps: int, words: dict[str, Any]) -> Tensor:
        """Make the law of a run of ``steps``; the timesteps of its transitions, [N]."""

    def rounds(self) -> Iterator[Tensor]:
        """A nominal timestep for each round, until every sample is done."""

    def scale(self, latents: Tensor) -> Tensor:
        """What the network is to be given of the latents: later rounds scale each row anew."""

    def step(self, prediction: Tensor, latents: Tensor, generator: Any) -> Tensor:
        """End a round by what the pipeline made of the network's output; the latents after it."""


class RoundTimesteps(Tensor):
    """Timesteps ``[N]`` that are those of the schedule, except that looping over them makes rounds.

    What is computed from them is a plain tensor.
    """

    __torch_function__ = torch._C._disabled_torch_function_impl  # type: ignore[assignment]
    _rounds: Callable[[], Iterator[Tensor]]

    @classmethod
    def of(cls, timesteps: Tensor, rounds: Callable[[], Iterator[Tensor]]) -> RoundTimesteps:
        """Those of a run with these ``rounds``."""
        made = timesteps.as_subclass(cls)
        made._rounds = rounds
        return made

    def __iter__(self) -> Iterator[Tensor]:
        return self._rounds()

    def to(self, *args: Any, **kwargs: Any) -> RoundTimesteps:
        """Move; they stay what they are."""
        return self.of(self.as_subclass(Tensor).to(*args, **kwargs), self._rounds)


class RoundScheduler:
    """What :func:`enabled_scheduler` puts before a scheduler's class."""

    driver: Driver
    real: Any
    #: Every law asks the network once a step, whatever the scheduler does: pipelines count by it.
    order = 1

    @property
    def init_noise_sigma(self) -> Any:
        """The scheduler's own, unless the law is another."""
        scale = self.driver.initial_scale
        if scale is not None:
            return scale
        own = vars(self).get("init_noise_sigma")
        return super().init_noise_sigma if own is None else own  # type: ignore[misc]

    @init_noise_sigma.setter
    def init_noise_sigma(self, value: Any) -> None:
        vars(self)["init_noise_sigma"] = value

    def scale_model_input(self, sample: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """Scale what the network is given, as :meth:`Driver.scale` does."""
        return self.driver.scale(sample)

    def save_pretrained(self, *args: Any, **kwargs: Any) -> Any:
        """Save the pipeline's own scheduler."""
        return self.real.save_pretrained(*args, **kwargs)

    def save_config(self, *args: Any, **kwargs: Any) -> Any:
        """Save the pipeline's own scheduler."""
        return self.real.save_config(*args, **kwargs)

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        return copy.deepcopy(self.real, memo)

    def __reduce__(self) -> Any:
        return copy.copy, (self.real,)


def enabled_scheduler(real: Any, driver: Driver) -> Any:
    """A scheduler like ``real``, which is left alone, whose steps are the rounds of ``driver``.

    Raises ValueError if ``real`` is such a scheduler of another pipeline.
    """
    if isinstance(real, RoundScheduler):
        raise ValueError(
            f"pipe must have a scheduler of its own to be enabled, got the {type(real).__name__} "
            "of a pipeline that is enabled already: give it another, pipe.scheduler = "
            "type(pipe.scheduler).from_config(pipe.scheduler.config)"
        )
    kind: Any = type(real)
    made: Any = object.__new__(_class_of(kind))
    made.__dict__.update(copy.copy(real).__dict__)
    made.driver, made.real = driver, real
    return made


@functools.cache
def _class_of(kind: Any) -> type:
    """A subclass of the scheduler's class: pipelines ask for it, and for signatures."""
    given = list(inspect.signature(kind.set_timesteps).parameters)[1:]
    stepped = dict(list(inspect.signature(kind.step).parameters.items())[1:])

    @functools.wraps(kind.set_timesteps)
    def set_timesteps(self: Any, *args: Any, **kwargs: Any) -> None:
        kind.set_timesteps(self, *args, **kwargs)
        words = {**dict(zip(given, args, strict=False)), **kwargs}
        steps = words.pop("num_inference_steps", None)
        timesteps = self.driver.begin(self, len(self.timesteps) if steps is None else steps, words)
        self.timesteps = RoundTimesteps.of(timesteps, self.driver.rounds)

    @functools.wraps(kind.step)
    def step(self: Any, *args: Any, **kwargs: Any) -> Any:
        words = {**dict(zip(stepped, args, strict=False)), **kwargs}
        for name in words.keys() - _UNDERSTOOD:
            if words[name] is not (default := stepped[name].default) and words[name] != default:
                raise ValueError(
                    f"{name} must be left out of the step of an enabled {kind.__name__}, got "
                    f"{shortened(words[name])}: it would change the law"
                )
        samples = self.driver.step(words["model_output"], words["sample"], words.get("generator"))
        if not words.get("return_dict", True):
            return (samples,)
        return _output_of(kind)(prev_sample=samples)

    def new(cls: type, *args: Any, **kwargs: Any) -> Any:
        """Build one of the scheduler's own class, as by ``type(pipe.scheduler).from_config``."""
        return kind(*args, **kwargs)

    # What writes down its class, as other pipelines of the same parts do, means the scheduler's.
    body = {"__new__": new, "set_timesteps": set_timesteps, "step": step}
    return type(kind.__name__, (RoundScheduler, kind), body | {"__module__": kind.__module__})


@functools.cache
def _output_of(kind: Any) -> Any:
    """What a step of the class returns, where its module has an output of its own."""
    from diffusers.schedulers.scheduling_utils import SchedulerOutput

    module = inspect.getmodule(kind)
    own = getattr(module, f"{kind.__name__}Output", None)
    return SchedulerOutput if own is None else own
