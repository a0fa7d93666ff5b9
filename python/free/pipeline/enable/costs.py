"""What a window rule is told of a network: how to ask it, and what its cost depends on."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence

from torch import Tensor

from free.models.output import TeacherOutput
from free.pipeline.enable.call import NetworkCall
from free.pipeline.enable.network import Network
from free.rounds.target import Answer


class NetworkCosts:
    """A stand-in for teacher and target, whose calls take as long as the pipeline's do.

    What it answers are the states themselves: only the time matters. ``timesteps`` returns those
    of transitions.
    """

    def __init__(
        self, network: Network, calls: Sequence[NetworkCall], timesteps: Callable[[Tensor], Tensor]
    ) -> None:
        self._calls, self._timesteps = calls, timesteps
        config = {key: value for key, value in network.config.items() if not key.startswith("_")}
        weight = next(network.module.parameters())
        # Compiled, or moved to where it is needed, it takes another time.
        hooked = type(getattr(network.module, "_hf_hook", None)).__name__
        compiled = type(network.module).__name__, network.module._compiled_call_impl is not None
        #: Equal for networks that cost the same, with the same arguments (:mod:`free.window`).
        self.cost_key = [
            network.kind,
            *compiled,
            hooked,
            json.dumps(config, sort_keys=True, default=str),
            str(weight.dtype),
            str(weight.device),
            [call.shapes for call in calls],
        ]

    def __call__(self, x: Tensor, k: Tensor, y: Tensor) -> Answer:
        """Ask about states ``x [R, ...]`` of transitions ``k`` of the samples ``y``."""
        for call in self._calls:
            call.ask(x, self._timesteps(k), y)
        return Answer(TeacherOutput(x), x, x, x)
