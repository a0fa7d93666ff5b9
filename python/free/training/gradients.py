"""A model's gradients as one buffer: emptied, shared and clipped in one operation each."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from free.training.parallel import Ranks

__all__ = ["Gradients"]


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
