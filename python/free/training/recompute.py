"""Activations that are computed again in the backward pass instead of being kept."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

from torch import nn
from torch.utils.checkpoint import checkpoint

from free.models.layers import DiTBlock

__all__ = ["recomputed"]


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
