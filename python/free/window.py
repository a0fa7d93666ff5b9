"""How many teacher rows each sample gets in a round."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["window_lengths"]


def window_lengths(k: Tensor, window: int, steps: int) -> Tensor:
    """A fixed window, cut where the run ends, so that nothing past the last transition is drafted.

    Parameters
    ----------
    k : Tensor, shape [B], int64
        Next transition of each sample, ``0 .. steps - 1``.
    window : int
        Rows of a full window, >= 1.
    steps : int
        Transitions of the schedule.

    Returns
    -------
    Tensor, shape [B], int32, in ``1 .. window``
    """
    return torch.clamp(steps - k, max=window).to(torch.int32)
