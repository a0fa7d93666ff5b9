"""The networks as graphs: what is traced for ONNX and TensorRT, each a function of tensors alone.

Where a size changes from call to call it is an axis of the contract; everything else (window,
sweeps, guidance or not) is fixed when the graph is made. Arguments are named as in the contract.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from free.models.dit import DiT
from free.models.drafter import DrafterNet
from free.models.guidance import blend, merge, pair, pair_labels, unpair
from free.reference.draft import roll_transition


class Teacher(nn.Module):
    """``(x [R, C, H, W], t [R], y [R][, cfg_scale [C]]) -> eps, feature[, variance]``.

    With ``cfg_scale`` it evaluates each row with its label and without; outputs are those of
    :class:`free.models.guidance.GuidedTeacher`.
    """

    def __init__(self, network: DiT) -> None:
        super().__init__()
        self.network = network

    def forward(
        self, x: Tensor, t: Tensor, y: Tensor, cfg_scale: Tensor | None = None
    ) -> tuple[Tensor, ...]:
        if cfg_scale is None:
            out = self.network(x, t, y)
        else:
            out = self.network(pair(x), pair(t), pair_labels(y, self.network.null_label))
            out = merge(out, blend(out.eps.float(), cfg_scale[:, None, None]))
        return tuple(part.float() for part in out if part is not None)


class DrafterStep(nn.Module):
    """``(x, innovation [R, C, H, W], t [R], y [R], feature[, cfg_scale [C]]) -> change, feature``.

    ``feature`` is [R, T, E], guided [R, 2, T, E]. The label table is the teacher's.
    """

    def __init__(self, network: DrafterNet, teacher: DiT) -> None:
        super().__init__()
        self.network = network
        self.labels = teacher.y_embedder
        self.null_label = teacher.null_label

    def forward(
        self,
        x: Tensor,
        innovation: Tensor,
        t: Tensor,
        y: Tensor,
        feature: Tensor,
        cfg_scale: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        if cfg_scale is None:
            change, after = self.network(x, innovation, t, self.labels(y), feature)
            return change.float(), after.float()
        labels = self.labels(pair_labels(y, self.null_label))
        change, after = self.network(
            pair(x), pair(innovation), pair(t), labels, feature.flatten(0, 1)
        )
        return blend(change.float(), cfg_scale[:, None, None]), unpair(after.float())


class _Point(NamedTuple):
    """A state of a window, and the mean and guess of the transition that led to it."""

    state: Tensor
    mean: Tensor
    guess: Tensor


class DraftWindow(nn.Module):
    """All drafts of a window, ``drafts`` or P of each sample, with the drafter's calls.

    With ``sweeps`` the drafter is called so often, each time at the rows ``asked``, and the window
    is rolled after each call. Without, it is called for one transition after the other
    (autoregression, the paper's way).

    The window is a :class:`free.drafters.protocol.WindowPlan`; ``sigma_before [B, P]`` is the sigma
    of the transition before each. The drafter starts from rows of the teacher's ``feature``:

    - With sweeps, ``asked [A]`` are flat indices into [B, P]; ``slot [B, P]`` is the inverse,
      counted from 1, and 0 where nothing is asked. The rows are ``carry [A]``, from the second
      sweep on ``carry_next [A]``, which counts the drafter's own features of the sweep before
      after the teacher's.
    - Without, the rows are ``carry [B, P]``; where ``own [B, P]`` the drafter starts from its own
      feature of one transition before.
    """

    def __init__(self, step: DrafterStep, drafts: int, sweeps: int | None) -> None:
        super().__init__()
        self.step = step
        self.drafts = drafts
        self.sweeps = sweeps

    def forward(
        self,
        x: Tensor,  # [B, C, H, W]
        noise: Tensor,  # [B, P, C, H, W]
        *,
        a: Tensor,  # [B, P], and so are the other coefficients
        b: Tensor,
        sigma: Tensor,
        sigma_before: Tensor,
        t: Tensor,  # [B, P]
        y: Tensor,  # [B]
        slope: Tensor,
        intercept: Tensor,  # [B, P, C, H, W]
        settled: Tensor,  # [B, P] bool
        guess_before: Tensor,  # [B, C, H, W]
        mean_before: Tensor,
        feature: Tensor,  # [R, (2,) T, E]
        asked: Tensor | None = None,
        slot: Tensor | None = None,
        carry: Tensor,
        own: Tensor | None = None,
        carry_next: Tensor | None = None,
        cfg_scale: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        P, first, after = self.drafts, _Point(x, mean_before, guess_before), feature[:0]

        def follow(point: _Point, j: int, change: Tensor | None) -> _Point:
            rolled = roll_transition(
                point.state,
                point.guess,
                noise[:, j],
                intercept=intercept[:, j],
                slope=slope[:, j],
                change=change,
                stands=settled[:, j],
                adds=True,
                a=a[:, j],
                b=b[:, j],
                sigma=sigma[:, j],
            )
            return _Point(*rolled)

        def roll(changes: Tensor | None) -> list[_Point]:
            points = [first]
            for j in range(P):
                points.append(follow(points[j], j, None if changes is None else changes[:, j]))
            return points

        if self.sweeps is None or asked is None or slot is None:
            window = [first]
            for j in range(P):
                known = feature.index_select(0, carry[:, j])
                if j and own is not None:
                    known = torch.where(_over(own[:, j], known), after, known)
                at = window[j]
                innovation = (at.state - at.mean) / _over(sigma_before[:, j], x)
                change, after = self.step(at.state, innovation, t[:, j], y, known, cfg_scale)
                window.append(follow(at, j, change))
        else:
            labels = y[:, None].expand(-1, P).flatten().index_select(0, asked)
            times, sigmas = (c.flatten().index_select(0, asked) for c in (t, sigma_before))
            known = feature.index_select(0, carry)
            window = roll(None)
            for sweep in range(self.sweeps):
                if sweep and carry_next is not None:
                    known = torch.cat([feature, after]).index_select(0, carry_next)
                state, mean = (
                    torch.stack(column, dim=1).flatten(0, 1).index_select(0, asked)
                    for column in ([p.state for p in window[:P]], [p.mean for p in window[:P]])
                )
                innovation = (state - mean) / _over(sigmas, x)
                change, after = self.step(state, innovation, times, labels, known, cfg_scale)
                changes = torch.cat([torch.zeros_like(x[:1]), change])
                window = roll(changes.index_select(0, slot.flatten()).view_as(noise))
        means = [point.mean for point in window[1:]]
        return torch.stack([p.state for p in window], dim=1), torch.stack(means, dim=1)


def _over(column: Tensor, rows: Tensor) -> Tensor:
    """[R] with axes to broadcast over ``rows [R, ...]``."""
    return column.view(-1, *[1] * (rows.dim() - 1))
