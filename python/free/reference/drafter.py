"""What the network of a trained drafter is asked."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class DrafterRows(NamedTuple):
    """Rows that a drafter's network is asked about: G R of them, G being 2 with a null label and 1
    without.

    Attributes
    ----------
    states, innovation : Tensor, shape [G R, ...], float32
        States as the network is given them, and the noise of the transitions that led there. With
        a null label each is there twice: for its label, then for the null label.
    t, label : Tensor, shape [G R], int64
        Timesteps and labels.
    """

    states: Tensor
    innovation: Tensor
    t: Tensor
    label: Tensor


def drafter_rows(
    x: Tensor,
    mean: Tensor,
    k: Tensor,
    y: Tensor,
    *,
    timesteps: Tensor,
    sigma: Tensor,
    scale: Tensor | None = None,
    null_label: int | None = None,
) -> DrafterRows:
    """``innovation = (x - mean) / sigma``, of the transition before ``k``, and what else there is.

    Parameters
    ----------
    x, mean : Tensor, shape [R, ...], float32
        States, and the means of the transitions that led there.
    k : Tensor, shape [R], int64
        Transitions from these states, ``0 .. N - 1``. Nothing led to the first one: it is given
        the sigma of its own.
    y : Tensor, shape [R], int64
        Labels.
    timesteps : Tensor, shape [N], int64
        Of each transition. They are copied only: other numbers of 64 bits may be viewed as int64.
    sigma : Tensor, shape [N], float32
    scale : Tensor or None, shape [N], float32
        What the network is given is the state times this.
    null_label : int or None
        Label of a second row for each state; None for no second rows.

    Raises
    ------
    TypeError, ValueError
        On the CPU also for a ``k`` that is not in the schedule. On CUDA the nearest that is stands
        for it.
    """
    axes, step = [-1] + [1] * (x.dim() - 1), k.clamp(0, len(timesteps) - 1)
    innovation = (x - mean) / sigma[k.clamp(1, len(timesteps)) - 1].view(axes)
    states, t, label = x if scale is None else scale[step].view(axes) * x, timesteps[step], y
    if null_label is not None:
        states, innovation, t = (rows.repeat_interleave(2, 0) for rows in (states, innovation, t))
        label = torch.stack([y, torch.full_like(y, null_label)], dim=1).flatten()
    return DrafterRows(states, innovation, t, label)
