"""Drafting: the states a round proposes, and the means they were drawn around."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from free.models.output import require_eps, require_finite
from free.schedule import Table

__all__ = ["draft_window"]

Predict = Callable[[Tensor, Tensor, Tensor, Any], tuple[Tensor, Any]]


def draft_window(
    predict: Predict,
    table: Table,
    x: Tensor,
    k: Tensor,
    y: Tensor,
    carry: Any,
    noise: Tensor,
    length: Tensor,
) -> tuple[Tensor, Tensor]:
    """Draft up to ``W - 1`` transitions by autoregression (the paper's way).

    **Exactness rule.** The draft of transition ``j`` is ``m_hat_j + sigma_j z_j``. Its mean may
    depend on the state, the carry and ``z_0 .. z_{j-1}``; it never sees ``z_j`` or later noise.
    Then the draft is a draw from N(m_hat_j, sigma_j^2), which is all that verification needs.

    Parameters
    ----------
    predict : callable
        ``Drafter.predict``.
    table : Table
    x : Tensor, shape [B, ...], float32
        Current states.
    k : Tensor, shape [B], int64
        Their transitions.
    y : Tensor, shape [B], int64
        Labels.
    carry : Any
        The drafter's carry at ``x``.
    noise : Tensor, shape [B, W - 1, ...], float32
        The drafts' noises z.
    length : Tensor, shape [B], int32
        Rows wanted of each sample, ``1 .. W``; ``length - 1`` transitions are drafted.

    Returns
    -------
    states : Tensor, shape [B, W, ...]
        The current state and the drafted ones. Entries at and beyond ``length`` are undefined.
    draft_means : Tensor, shape [B, W - 1, ...]
        ``m_hat``; entries at and beyond ``length - 1`` are undefined.

    Raises
    ------
    FloatingPointError
        If the drafter's output is not finite.
    """
    drafts = noise.shape[1]
    states = x.new_empty(x.shape[0], drafts + 1, *x.shape[1:])
    draft_means = torch.empty_like(noise)
    states[:, 0] = x
    axes = [-1] + [1] * (x.dim() - 1)
    rows = torch.arange(x.shape[0], device=x.device)
    for j in range(drafts):
        wanted = length[rows] > j + 1
        if not wanted.all():  # samples near their end leave the drafter's batch
            kept = wanted.nonzero().squeeze(1)
            rows, x, k, y, carry = rows[kept], x[kept], k[kept], y[kept], _take(carry, kept)
        eps_hat, carry = predict(x, k + j, y, carry)
        require_eps(eps_hat, x, "drafter")
        require_finite(eps_hat, "drafter", k + j, rows)
        mean = table.mean(k + j, x, eps_hat)
        x = torch.addcmul(mean, table.sigma[k + j].view(axes), noise[rows, j])
        draft_means[rows, j] = mean
        states[rows, j + 1] = x
    return states, draft_means


def _take(carry: Any, rows: Tensor) -> Any:
    """Rows of a carry: a tensor, a (named) tuple of tensors, or None."""
    if isinstance(carry, tuple):
        parts = [_take(part, rows) for part in carry]
        return type(carry)(*parts) if hasattr(carry, "_fields") else tuple(parts)
    if carry is None or isinstance(carry, Tensor):
        return None if carry is None else carry[rows]
    raise TypeError(
        f"carry must be a tensor, a tuple of tensors or None, got {type(carry).__name__}"
    )
