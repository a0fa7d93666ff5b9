"""What a teacher call leaves to the next window, in plain torch."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = [
    "recycled_rows",
    "response_sums",
]


def recycled_rows(
    length: Tensor, advance: Tensor, width: int, discarded: bool, stride: int | None = None
) -> tuple[Tensor, Tensor]:
    """Shift the rows of a teacher call by what each sample advanced.

    Parameters and results are those of :func:`free.ops.recycled_rows`.
    """
    length, advance = length.long(), advance.long()
    made = advance - 1
    last = length - 1 if discarded else made
    if stride is None:
        start = length.cumsum(0) - length
    else:
        start = stride * torch.arange(len(length), device=length.device)
    step = torch.arange(width, device=length.device)
    entry = torch.minimum(made[:, None] + step, last[:, None])
    return start[:, None] + entry, last - made + 1


def response_sums(
    states: Tensor,
    guess: Tensor,
    past_x: Tensor,
    past_guess: Tensor,
    row: Tensor,
    known: Tensor,
    length: Tensor,
    advance: Tensor,
    dot: Tensor,
    square: Tensor,
    memory: float,
) -> tuple[Tensor, Tensor]:
    """How far the teacher's predictions followed their states.

    Parameters and results are those of :func:`free.ops.response_sums`.
    """
    drafts = states.shape[1] - 1
    row = row[:, 1 : drafts + 1]
    count = torch.minimum(torch.minimum(advance, length - 1), known - 1)
    counted = torch.arange(drafts, device=row.device) < count[:, None]
    moved = (states[:, :drafts] - past_x[row]).flatten(2).double()
    followed = (guess[:, :drafts] - past_guess[row]).flatten(2).double()
    new_dot, new_square = (
        torch.where(counted, torch.linalg.vecdot(moved, other), 0.0).sum(1)
        for other in (followed, moved)
    )
    return (memory * dot + new_dot).float(), (memory * square + new_square).float()
