"""Networks in lower precision: the blocks' matrix products, and only those.

The state between blocks, the norms, the embeddings of patch, timestep and label, the final layer,
guidance and the roll of a window stay float32. In lower precision they would make the error of eps
five times as large, for a twentieth of the weights. adaLN's modulation, a third of the weights,
adds hardly any error. ``benchmarks/precision.py`` has the figures.
"""

from __future__ import annotations

import copy
from typing import TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from free.models.layers import DiTBlock

PRECISIONS = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}

Network = TypeVar("Network", bound=nn.Module)


class _LowLinear(nn.Module):
    """A linear layer with input and weights rounded to ``dtype``; it returns type ``result``."""

    def __init__(self, linear: nn.Linear, dtype: torch.dtype, result: torch.dtype) -> None:
        super().__init__()
        self.weight = nn.Parameter(linear.weight.detach().to(dtype), requires_grad=False)
        self.bias = nn.Parameter(linear.bias.detach().to(dtype), requires_grad=False)
        self.result = result

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x.to(self.weight.dtype), self.weight, self.bias).to(self.result)


def lower(network: Network, precision: str, modulation: bool = True) -> Network:
    """Copy ``network``, its blocks' matrix products in lower precision.

    Parameters
    ----------
    network : DiT or DrafterNet
        In float32.
    precision : {"fp32", "fp16", "bf16"}
    modulation : bool
        Whether this includes the layers of adaLN's shifts, scales and gates.

    Raises
    ------
    ValueError
        If ``precision`` is none of these.
    """
    if precision not in PRECISIONS:
        raise ValueError(f"precision must be one of {', '.join(PRECISIONS)}, got {precision!r}")
    network = copy.deepcopy(network)
    dtype = PRECISIONS[precision]
    if dtype is torch.float32:
        return network
    for block in [part for part in network.modules() if isinstance(part, DiTBlock)]:
        # Inside attention and MLP all is low; what they add to the state is float32.
        block.attn.qkv = _LowLinear(block.attn.qkv, dtype, dtype)  # type: ignore[assignment]
        block.attn.proj = _LowLinear(block.attn.proj, dtype, torch.float32)  # type: ignore[assignment]
        block.mlp.fc1 = _LowLinear(block.mlp.fc1, dtype, dtype)  # type: ignore[assignment]
        block.mlp.fc2 = _LowLinear(block.mlp.fc2, dtype, torch.float32)  # type: ignore[assignment]
        if modulation:
            last = block.adaLN_modulation[1]
            block.adaLN_modulation[1] = _LowLinear(last, dtype, torch.float32)  # type: ignore[arg-type]
    return network
