"""What a step of training changes: weights, the optimiser's moments, the averaged weights."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn
from torch.utils.checkpoint import checkpoint

from free.models.layers import DiTBlock
from free.training.config import TrainConfig
from free.training.parallel import Ranks

__all__ = [
    "Gradients",
    "Weights",
    "recomputed",
]

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


class Gradients:
    """Every trainable parameter's ``grad`` becomes a view into one tensor.

    Parameters
    ----------
    model : nn.Module

    Raises
    ------
    ValueError
        If nothing is trainable, or the trainable weights are not all float32 on one device.
    """

    def __init__(self, model: nn.Module) -> None:
        weights = [weight for weight in model.parameters() if weight.requires_grad]
        kinds = {(str(weight.dtype), str(weight.device)) for weight in weights}
        if len(kinds) != 1 or weights[0].dtype != torch.float32:
            raise ValueError(
                "model must have trainable weights, all float32 on one device, "
                f"got {sorted(kinds) or 'none'}"
            )
        sizes = [weight.numel() for weight in weights]
        self.flat = torch.zeros(sum(sizes), device=weights[0].device)
        for weight, part in zip(weights, self.flat.split(sizes), strict=True):
            weight.grad = part.view(weight.shape)

    def clear(self) -> None:
        """Before the first backward pass of a batch; later ones add up."""
        self.flat.zero_()

    def finish(self, ranks: Ranks, limit: float) -> Tensor:
        """Sum over the ranks, and shorten the whole to ``limit`` where it is longer.

        Returns
        -------
        Tensor, shape []
            The length before, the same on all ranks. Where it is not finite, the gradients are of
            no use, and so are the weights after the next step.
        """
        ranks.sum(self.flat)
        norm = torch.linalg.vector_norm(self.flat)
        self.flat.mul_((limit / (norm + 1e-6)).clamp(max=1.0))  # no waiting for the number
        return norm


@contextmanager
def recomputed(model: nn.Module, enabled: bool = True) -> Iterator[None]:
    """While this lasts, ``model``'s transformer blocks keep their inputs alone (gradient
    checkpointing): less memory for one more forward pass of them.
    """
    blocks = [block for block in model.modules() if enabled and isinstance(block, DiTBlock)]
    for block in blocks:
        vars(block)["forward"] = partial(checkpoint, block.forward, use_reentrant=False)
    try:
        yield
    finally:
        for block in blocks:
            del vars(block)["forward"]  # the class's own shows again
