"""The policy: what it saw last, the chunk that is being flown, and the sampler of the next one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

import free
from examples.policy.networks import PolicyConfig
from examples.policy.sampler import BY_HAND, Denoise, schedule_of

#: Settings of the speculated sampler that need no training.
TRAINING_FREE: dict[str, Any] = {"sweeps": 0, "recycle": "response"}


class ConditionedTeacher:
    """A denoiser under any condition: a label is the number of the request that it belongs to."""

    def __init__(self, denoise: Denoise, sample_shape: Sequence[int], cost_key: Any = None) -> None:
        self.denoise = denoise
        self.sample_shape = tuple(sample_shape)
        self.cost_key = cost_key
        #: A network of torch may become part of a CUDA graph.
        self.capturable = isinstance(denoise, nn.Module)
        self.conditions = torch.empty(0)
        self._places: dict[torch.Size, Tensor] = {}

    def condition(self, conditions: Tensor) -> None:
        """Set the conditions of the next run, ``[requests, ...]``."""
        # Where those of this shape were before: a captured graph reads them there.
        place = self._places.setdefault(conditions.shape, torch.empty_like(conditions))
        self.conditions = place.copy_(conditions)

    def __call__(self, x: Tensor, t: Tensor, y: Tensor) -> free.TeacherOutput:
        """Ask the denoiser about rows of requests ``y [R]``."""
        return free.TeacherOutput(self.denoise(x, t, self.conditions[y]))


class Policy:
    """A diffusion policy in a control loop.

    Parameters
    ----------
    denoise : callable
        ``denoise(x [R, horizon, actions], t [R], observations [R, history, numbers])``: a network
        of :mod:`examples.policy.networks`, or an engine that runs it.
    config : PolicyConfig
    steps : int
        Of the sampler, at most ``config.steps``.
    window : int, "auto" or None
        Rows of a speculated round; None is the plain sampler.
    law : {"ddpm", "ddpm by hand", "ddim"}
        The others than the first are loops of :mod:`examples.policy.sampler`, and plain.
    seed : int
        Of the noise.
    cost_key : optional
        JSON value by which ``"auto"`` keeps what rounds cost; None measures in each process.

    Attributes
    ----------
    report : Report or None
        Of the last chunk.
    """

    def __init__(
        self,
        denoise: Denoise,
        config: PolicyConfig,
        *,
        steps: int | None = None,
        window: int | str | None = None,
        law: str = "ddpm",
        seed: int = 0,
        cost_key: Any = None,
    ) -> None:
        if law not in ("ddpm", *BY_HAND):
            raise ValueError(f"law must be one of ddpm, {', '.join(BY_HAND)}, got {law!r}")
        if law in BY_HAND and window is not None:
            raise ValueError(f"window must be None with law {law!r}, got {window!r}")
        self.config = config
        self.law, self.steps = law, config.steps if steps is None else steps
        self.teacher = ConditionedTeacher(denoise, (config.horizon, config.actions), cost_key)
        schedule = schedule_of(config.steps, self.steps)
        self.sampler: free.SequentialSampler | free.SpeculativeSampler
        if window is None:
            self.sampler = free.SequentialSampler(self.teacher, schedule)
        else:
            self.sampler = free.SpeculativeSampler(
                self.teacher, "frozen", schedule, window, **TRAINING_FREE
            )
        self.report: free.Report | None = None
        self.reset(seed)

    def reset(self, seed: int = 0) -> None:
        """Begin an episode: nothing was seen yet, no action is left."""
        self._seed = seed
        self._seen: list[Tensor] = []
        self._actions: list[NDArray[np.float32]] = []

    def act(self, observation: NDArray[np.float32]) -> NDArray[np.float32]:
        """The next action, [actions], of the chunk that is being flown, or of a new one."""
        seen = torch.as_tensor(observation, dtype=torch.float32)
        self._seen = [*(self._seen or [seen] * self.config.history), seen][-self.config.history :]
        if not self._actions:
            chunk = self.plan(torch.stack(self._seen)[None], [self._seed])[0]
            self._actions = list(chunk[: self.config.execute].numpy())
            self._seed += 1
        return self._actions.pop(0)

    def plan(self, observations: Tensor, seeds: Sequence[int]) -> Tensor:
        """Draw a chunk for each request: ``observations [B, history, numbers]`` and noise seeds.

        Returns chunks [B, horizon, actions], in -1 .. 1.
        """
        self.teacher.condition(observations)
        if self.law in BY_HAND:
            random, loop = torch.Generator(), BY_HAND[self.law]
            shape, schedule = self.teacher.sample_shape, self.sampler.schedule
            noise = [torch.randn(shape, generator=random.manual_seed(seed)) for seed in seeds]
            with torch.no_grad():
                chunks = loop(
                    self.teacher.denoise, torch.stack(noise), observations, schedule, random
                )
        else:
            chunks, self.report = self.sampler.sample(range(len(seeds)), list(seeds))
        return chunks.clamp(-1, 1)
