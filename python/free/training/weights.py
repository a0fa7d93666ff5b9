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

#: Gradients are shortened to this length, of all weights together.
_LONGEST_GRADIENT = 1.0


class Weights:
    """AdamW without decay and an exponential average that begins at the first weights, as DiT's.

    ``model`` is moved to the rank's device, and all ranks get the first one's weights; ``average``
    is its averaged copy in evaluation mode. A ValueError if nothing is trainable, or the trainable
    weights are not all float32 on one device.
    """

    def __init__(self, model: nn.Module, config: TrainConfig, ranks: Ranks) -> None:
        self.model = model.to(ranks.device).train()
        ranks.share_weights(model)
        self.average = copy.deepcopy(model).eval().requires_grad_(False)
        self._ranks = ranks
        trainable = [weight for weight in model.parameters() if weight.requires_grad]
        self._gradients = _one_gradient(trainable)
        self._optimizer = torch.optim.AdamW(
            trainable,
            config.learning_rate,
            weight_decay=0.0,
            fused=ranks.device.type in ("cpu", "cuda"),
        )
        self._own, self._averaged = list(model.parameters()), list(self.average.parameters())
        self._update_average = get_ema_multi_avg_fn(config.ema_decay)

    def clear(self) -> None:
        """Before the first backward pass of a step; later ones add up."""
        self._gradients.zero_()

    def update(self, rate: float) -> Tensor:
        """Take a step at this learning rate, after its last backward pass.

        Returns the length [] of the gradients before they are shortened, the same on all ranks.
        Where it is not finite, the weights are of no use any more.
        """
        gradients = self._ranks.sum(self._gradients)
        length = torch.linalg.vector_norm(gradients)
        gradients.mul_((_LONGEST_GRADIENT / (length + 1e-6)).clamp(max=1.0))  # no waiting for it
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
        """Go on from what :meth:`state` returned.

        Raises KeyError, TypeError, ValueError or RuntimeError if it is something else.
        """
        self.model.load_state_dict(state["model"])
        self.average.load_state_dict(state["average"])
        moments = state["optimizer"]["state"]
        groups = self._optimizer.state_dict()["param_groups"]  # the rates are this run's
        own = [weight for group in self._optimizer.param_groups for weight in group["params"]]
        for index, weight in enumerate(own):
            shapes = [moments[index][name].shape for name in ("step", "exp_avg", "exp_avg_sq")]
            if shapes != [(), weight.shape, weight.shape]:
                raise ValueError(f"the moments of weight {index} must be of its shape")
        self._optimizer.load_state_dict({"state": moments, "param_groups": groups})


def _one_gradient(weights: list[nn.Parameter]) -> Tensor:
    """One tensor of zeros, of which every weight's ``grad`` becomes a view: summed over the ranks,
    measured and shortened at once.
    """
    kinds = {(str(weight.dtype), str(weight.device)) for weight in weights}
    if len(kinds) != 1 or weights[0].dtype != torch.float32:
        raise ValueError(
            "model must have trainable weights, all float32 on one device, "
            f"got {sorted(kinds) or 'none'}"
        )
    sizes = [weight.numel() for weight in weights]
    flat = torch.zeros(sum(sizes), dtype=torch.float32, device=weights[0].device)
    for weight, part in zip(weights, flat.split(sizes), strict=True):
        weight.grad = part.view(weight.shape)
    return flat


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
