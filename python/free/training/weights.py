"""What a step of training changes: weights, the optimiser's moments, the averaged weights."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

from free.training.config import TrainConfig
from free.training.gradients import Gradients
from free.training.parallel import Ranks

__all__ = ["Weights"]

#: Gradients are shortened to this length, of all weights together.
_LONGEST_GRADIENT = 1.0


class Weights:
    """AdamW without decay and an exponential average that begins at the first weights, as DiT's.

    Parameters
    ----------
    model : nn.Module
        Moved to the rank's device, and made the first rank's.
    config : TrainConfig
    ranks : Ranks

    Attributes
    ----------
    model, average : nn.Module
        What is trained, and its averaged copy in evaluation mode.
    """

    def __init__(self, model: nn.Module, config: TrainConfig, ranks: Ranks) -> None:
        self.model = model.to(ranks.device).train()
        ranks.share_weights(model)
        self.average = copy.deepcopy(model).eval().requires_grad_(False)
        self._ranks = ranks
        self._gradients = Gradients(model)
        self._optimizer = torch.optim.AdamW(
            [weight for weight in model.parameters() if weight.requires_grad],
            config.learning_rate,
            weight_decay=0.0,
            fused=ranks.device.type in ("cpu", "cuda"),
        )
        self._own, self._averaged = list(model.parameters()), list(self.average.parameters())
        self._update_average = get_ema_multi_avg_fn(config.ema_decay)

    def clear(self) -> None:
        """Before the first backward pass of a step."""
        self._gradients.clear()

    def update(self, rate: float) -> Tensor:
        """After the last backward pass of a step, with its learning rate.

        Returns
        -------
        Tensor, shape []
            Length of the gradients; the weights are finite as long as it is.
        """
        length = self._gradients.finish(self._ranks, _LONGEST_GRADIENT)
        self._optimizer.param_groups[0]["lr"] = rate
        self._optimizer.step()
        with torch.no_grad():
            self._update_average(self._averaged, self._own, 0)
        return length

    def state(self) -> dict[str, Any]:
        """For a checkpoint."""
        return {
            "model": self.model.state_dict(),
            "average": self.average.state_dict(),
            "optimizer": self._optimizer.state_dict(),
        }

    def load(self, state: dict[str, Any]) -> None:
        """What :meth:`state` returned."""
        self.model.load_state_dict(state["model"])
        self.average.load_state_dict(state["average"])
        self._optimizer.load_state_dict(state["optimizer"])
