"""What a pipeline's first step tells about it: its samples, its network calls, its prediction."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from free.pipeline.enable.call import NetworkCall
from free.pipeline.enable.network import Arguments, Network
from free.pipeline.enable.rows import packing_of
from free.pipeline.enable.timestep import TimestepForm

#: Pipelines that carry each of their latents twice, and of these go on with the first.
_DOUBLED = ("DiTPipeline",)


class Recognised(NamedTuple):
    """The step of a pipeline.

    Attributes
    ----------
    calls : list of NetworkCall
        Those of a step, in order.
    samples, copies : int
        B, and how often the pipeline carries each of them.
    latents, prediction : Tensor, shape [B, ...]
        Those of the first step.
    """

    calls: list[NetworkCall]
    samples: int
    copies: int
    latents: Tensor
    prediction: Tensor

    @classmethod
    def of(
        cls,
        pipe: Any,
        network: Network,
        asked: list[tuple[Arguments, Any]],
        *,
        timestep: Tensor,
        prediction: Tensor,
        latents: Tensor,
        scaled: Tensor,
    ) -> Recognised:
        """Recognise a step in which the network was ``asked``, at ``timestep``.

        It should have been about the latents, ``scaled``.

        Raises ValueError, naming what is unknown, if it cannot be.
        """
        name = type(pipe).__name__
        if not asked:
            raise ValueError(
                f"{name} must call its {network.kind} in every step, got none before scheduler.step"
            )
        if prediction.shape != latents.shape:
            raise ValueError(
                f"{name} must give scheduler.step a prediction like the latents, of shape "
                f"{list(latents.shape)}, got {list(prediction.shape)}"
            )
        copies = 2 if name in _DOUBLED and _twice(latents) and _twice(prediction) else 1
        samples = len(latents) // copies
        latents, prediction = latents[:samples], prediction[:samples]
        forms = TimestepForm(
            float(pipe.scheduler.config.get("num_train_timesteps", 1000)),
            float(getattr(network.config, "timestep_scale", None) or 1.0),
        )
        calls = [
            NetworkCall(
                network,
                arguments,
                output,
                latents=scaled[:samples],
                timestep=timestep,
                forms=forms,
            )
            for arguments, output in asked
        ]
        return cls(calls, samples, copies, latents, prediction)

    def split(self, prediction: Tensor, owner: Tensor, pipeline: str) -> tuple[Tensor, Tensor]:
        """What a pipeline made of the rows of ``owner [R]``, and of the row behind them.

        Raises ValueError if the prediction has another shape than its network's output asks for.
        """
        rows, shape = len(owner), self.prediction.shape[1:]
        listed = any(call.listed for call in self.calls)
        packing = packing_of(owner, self.samples) if listed else None
        if packing is None:
            expected = (self.copies * (rows + 1), *shape)
        else:
            expected = (self.samples, packing.shape[1] * shape[0], *shape[1:])
        if prediction.shape != expected:
            raise ValueError(
                f"{pipeline} must make its prediction row by row, of shape {list(expected)}, got "
                f"{list(prediction.shape)}"
            )
        if packing is None:
            return prediction[:rows], prediction[rows : rows + 1]
        each = prediction.unflatten(1, (packing.shape[1], -1)).flatten(0, 1)
        place = packing.flatten()
        # Samples come one after the other in both, and every sample's last is the row behind.
        return each[place < rows], each[-1:]


def _twice(values: Tensor) -> bool:
    half = len(values) // 2
    return len(values) % 2 == 0 and torch.equal(values[:half], values[half:])
