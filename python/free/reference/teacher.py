"""What a teacher said, guided, and the means that follow from it."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from free.reference.draft import COEFFICIENTS, GUIDED


class NetworkRows(NamedTuple):
    """Rows that a network is asked about: G R of them, G being 2 with a null label and 1 without.

    Attributes
    ----------
    x : Tensor, shape [G R, ...], float32
        States. With a null label each is there twice: for its label, then for the null label.
    t, label : Tensor, shape [G R], int64
        Timesteps and labels.
    k : Tensor, shape [R], int64
        Transitions.
    mean : Tensor, shape [R, ...], float32
        Means of the transitions that led to the states; without means, [0].
    """

    x: Tensor
    t: Tensor
    label: Tensor
    k: Tensor
    mean: Tensor


def network_rows(
    states: Tensor,
    at: Tensor,
    y: Tensor,
    timesteps: Tensor,
    scale: Tensor | None = None,
    *,
    rows: int,
    first: int,
    end: int,
    sample: Tensor | None = None,
    entry: Tensor | None = None,
    null_label: int | None = None,
    means: Tensor | None = None,
    mean_before: Tensor | None = None,
) -> NetworkRows:
    """Gather rows of windows for a network.

    Parameters
    ----------
    states : Tensor, shape [B, W, ...], float32
        At least one axis follows W, and none is empty.
    at : Tensor, shape [B, W], int64
        Their transitions. The nearest of the schedule stands for others.
    y : Tensor, shape [B], int64
        Labels.
    timesteps : Tensor, shape [N], int64
        Of each transition. They are copied only: other numbers of 64 bits may be viewed as int64.
    scale : Tensor or None, shape [N], float32
        What the network is given is the state times this.
    rows : int
        R.
    first, end : int
        ``0 <= first <= end <= W``: these entries of every window, sample by sample, unless rows
        are listed.
    sample, entry : Tensor or None, shape [R], int64
        Lists the rows.
    null_label : int or None
        Label of a second row for each state; None for no second rows.
    means, mean_before : Tensor or None, shape [B, W - 1, ...] and [B, ...], float32
        Means of the transitions that led to a window's states but the first, and of the one that
        led to the first.

    Raises
    ------
    TypeError, ValueError
        On the CPU also for rows that are not there, or not as many as the span has. On CUDA the
        nearest stand for them.
    """
    if sample is None or entry is None:
        place = torch.arange(rows, device=y.device)
        span = max(end - first, 1)
        sample, entry = place // span, first + place % span
    k = at[sample, entry]
    x, label = states[sample, entry], y[sample]
    step = k.clamp(0, len(timesteps) - 1)
    t = timesteps[step]
    if scale is not None:
        x = scale[step].view([-1] + [1] * (x.dim() - 1)) * x
    if null_label is not None:
        x, t = x.repeat_interleave(2, 0), t.repeat_interleave(2)
        label = torch.stack([label, torch.full_like(label, null_label)], dim=1).flatten()
    mean = states.new_empty(0)
    if means is not None and mean_before is not None:
        mean = torch.cat([mean_before[:, None], means], dim=1)[sample, entry]
    return NetworkRows(x, t, label, k, mean)


class TargetMeans(NamedTuple):
    """Transitions as the teacher has them: [R, C, ...], float32, and ``sigma [R]``.

    Attributes
    ----------
    eps : Tensor
        The network's prediction, guided.
    means : Tensor
        Of the transitions, without what the prediction of the transition before adds to them.
    guess : Tensor
        The image that the prediction tells; the prediction itself where a schedule does not say.
    sigma : Tensor
        Standard deviations of the transitions.
    """

    eps: Tensor
    means: Tensor
    guess: Tensor
    sigma: Tensor


def target_means(
    x: Tensor,
    eps: Tensor,
    k: Tensor,
    columns: Tensor,
    cfg_scale: float | None = None,
    cfg_channels: int | None = None,
    *,
    clip: float | None = None,
) -> TargetMeans:
    """``guess = p x + q eps`` within ``-clip .. clip``, and ``mean = a x + b guess``, with eps
    guided and in float32 first.

    Guidance is that of :class:`free.models.guidance.Guidance`, taken in float32 whatever the
    type of ``eps``.

    Parameters
    ----------
    x : Tensor, shape [R, C, ...], float32
        States.
    eps : Tensor, shape [R, C, ...] or, under guidance, [2R, C, ...], float32, float16 or bfloat16
        Under guidance, row ``2r`` is that of state ``r`` with its label and ``2r + 1`` without.
    k : Tensor, shape [R], int64
        Transitions, ``0 .. N - 1``.
    columns : Tensor, shape [8, N], float32
        As :class:`free.schedule.table.Table` has them.
    cfg_scale : float or None
        A float32, and finite; None: not guided. Where only a share of the guidance counts
        (``columns[7]``), 1 and that share of the difference.
    cfg_channels : int or None
        How many leading channels are guided, ``0 .. C``; None for all.
    clip : float or None
        The largest guess, >= 0; None for no limit.

    Raises
    ------
    TypeError, ValueError
        On the CPU also for a ``k`` that is not in the schedule. On CUDA the nearest that is stands
        for it.
    """
    eps, axes = eps.to(torch.float32, copy=True), [-1] + [1] * (x.dim() - 1)
    if cfg_scale is not None:
        eps, unconditional = (row.contiguous() for row in eps.unflatten(0, (-1, 2)).unbind(1))
        guided, share = slice(cfg_channels), columns[GUIDED, k].view(axes)
        scale = torch.where(share == 1, cfg_scale, 1 + share * (cfg_scale - 1)).expand_as(eps)
        eps[:, guided] = torch.lerp(unconditional[:, guided], eps[:, guided], scale[:, guided])
    a, b, _, sigma, p, q = (column.view(axes) for column in columns[:COEFFICIENTS, k])
    guess = p * x + q * eps
    if clip is not None:
        guess = guess.clamp(-clip, clip)
    return TargetMeans(eps, a * x + b * guess, guess, sigma.flatten())


def note_nonfinite_(
    failed: Tensor,
    samples: Tensor,
    values: Tensor,
    k: Tensor,
    *,
    first: int,
    low: Tensor | None,
    high: Tensor,
) -> None:
    """Remember the first transition of each sample whose row is not finite.

    Row ``b n + i`` is position ``first + i`` of sample ``samples[b]``, and is asked about where
    that is at least ``low[b]`` and less than ``high[b]``.

    Parameters
    ----------
    failed : Tensor, shape [S], int64
        By sample; the smallest ``k`` of a row that is asked about and has NaN or inf, or what it
        was if that is smaller.
    values : Tensor, shape [B n, ...], float32, float16 or bfloat16
    k : Tensor, shape [B n], int64
    samples : Tensor, shape [B], int64, in ``0 .. S - 1``
    first : int
    low, high : Tensor, shape [B], int64
        A ``low`` of None is 0.

    Raises
    ------
    TypeError, ValueError
        ValueError also for a ``failed`` that shares memory with another argument. Values are not
        looked at.
    RuntimeError
        On the CPU, where torch finds a sample that is not there. On CUDA that is passed over.
    """
    bad = ~values.isfinite().flatten(1).all(1).view(len(samples), -1)
    step = first + torch.arange(bad.shape[1], device=k.device)
    bad = bad & (step < high[:, None])
    if low is not None:
        bad = bad & (step >= low[:, None])
    never = torch.iinfo(torch.int64).max
    earliest = torch.where(bad, k.view_as(bad), never).amin(1)
    failed.scatter_reduce_(0, samples, earliest, "amin")
