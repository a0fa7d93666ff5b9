"""The networks as graphs: what is traced for ONNX and TensorRT, each a function of tensors alone.

Where a size changes from call to call it is an axis of the contract; everything else (window,
sweeps, guidance or not) is fixed when the graph is made.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from free.models.dit import DiT
from free.models.drafter import DrafterNet

__all__ = ["DraftSteps", "DraftSweeps", "DrafterStep", "Teacher"]


def _pair(rows: Tensor) -> Tensor:
    """[R, ...] -> [2R, ...]: each row twice, one after the other."""
    return rows.unsqueeze(1).expand(-1, 2, *rows.shape[1:]).flatten(0, 1)


def _guide(both: Tensor, scale: Tensor) -> Tensor:
    """[2R, C, H, W] interleaved -> [R, C, H, W]; ``scale [C]``, 1 where nothing is guided."""
    cond, uncond = both.unflatten(0, (-1, 2)).unbind(1)
    return uncond + scale[:, None, None] * (cond - uncond)


def _like(column: Tensor) -> Tensor:
    """[B] -> [B, 1, 1, 1]."""
    return column[:, None, None, None]


class Teacher(nn.Module):
    """``(x [R, C, H, W], t [R], y [R]) -> eps, feature[, variance]``.

    Guided, it also takes ``cfg_scale [C]``, evaluates each row with its label and without, and
    returns the guided eps, the features of both, [R, 2, T, E], and the variance with the label.
    """

    def __init__(self, network: DiT, guided: bool) -> None:
        super().__init__()
        self.network = network
        self.guided = guided

    def forward(
        self, x: Tensor, t: Tensor, y: Tensor, cfg_scale: Tensor | None = None
    ) -> tuple[Tensor, ...]:
        if cfg_scale is None:
            out = self.network(x, t, y)
            eps, feature, variance = out.eps.float(), out.feature.float(), out.variance
        else:
            null = torch.full_like(y, self.network.null_label)
            labels = torch.stack([y, null], dim=1).flatten()
            out = self.network(_pair(x), _pair(t), labels)
            eps = _guide(out.eps.float(), cfg_scale)
            feature = out.feature.float().unflatten(0, (-1, 2))
            variance = None if out.variance is None else out.variance.unflatten(0, (-1, 2))[:, 0]
        return (eps, feature) if variance is None else (eps, feature, variance.float())


class DrafterStep(nn.Module):
    """``(x, innovation [R, C, H, W], t [R], y [R], feature[, cfg_scale [C]]) -> change, feature``.

    ``feature`` is [R, T, E], guided [R, 2, T, E]. The label table is the teacher's.
    """

    def __init__(self, network: DrafterNet, teacher: DiT, guided: bool) -> None:
        super().__init__()
        self.network = network
        self.labels = teacher.y_embedder
        self.null_label = teacher.null_label
        self.guided = guided

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
        labels = torch.stack([y, torch.full_like(y, self.null_label)], dim=1).flatten()
        change, after = self.network(
            _pair(x), _pair(innovation), _pair(t), self.labels(labels), feature.flatten(0, 1)
        )
        return _guide(change.float(), cfg_scale), after.float().unflatten(0, (-1, 2))


class _Draft(nn.Module):
    """What both ways of drafting a window of ``P`` transitions share.

    Inputs, in the terms of ``free.rounds.draft``: the current state ``x`` and the window's
    ``noise``; ``a``, ``b``, ``sigma``: the transitions' coefficients in terms of x0, and
    ``sigma_before``, that of the transition before each; ``t``, ``y``; the first guess of each
    x0, ``intercept + slope x``, which stands where ``settled``; of the transition just made,
    ``guess_before`` and ``mean_before``; the teacher's features.
    """

    def __init__(self, step: DrafterStep, drafts: int) -> None:
        super().__init__()
        self.step = step
        self.drafts = drafts


class DraftSweeps(_Draft):
    """A window in ``sweeps`` drafter calls, each at the rows ``asked``, and the scans between.

    ``asked [A]`` are flat indices into [B, P]; ``slot [B, P]`` is the inverse, counted from 1,
    and 0 where nothing is asked. ``carry [A]`` is the row of ``feature`` to start from. From
    the second sweep on it is ``carry_next [A]``, which counts the drafter's own rows of
    the sweep before after those of ``feature``.
    """

    def __init__(self, step: DrafterStep, drafts: int, sweeps: int) -> None:
        super().__init__(step, drafts)
        self.sweeps = sweeps

    def forward(
        self,
        x: Tensor,  # [B, C, H, W]
        noise: Tensor,  # [B, P, C, H, W]
        a: Tensor,  # [B, P], and so are the other coefficients
        b: Tensor,
        sigma: Tensor,
        sigma_before: Tensor,
        t: Tensor,
        y: Tensor,  # [B]
        slope: Tensor,  # [B, P]
        intercept: Tensor,  # [B, P, C, H, W]
        settled: Tensor,  # [B, P] bool
        guess_before: Tensor,  # [B, C, H, W]
        mean_before: Tensor,
        feature: Tensor,  # [R, (2,) T, E]
        asked: Tensor,
        slot: Tensor,
        carry: Tensor,
        carry_next: Tensor | None = None,
        cfg_scale: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        P = self.drafts
        own = feature.index_select(0, carry)
        labels = y[:, None].expand(-1, P).flatten().index_select(0, asked)
        times = t.flatten().index_select(0, asked)
        sigmas = sigma_before.flatten().index_select(0, asked)
        change: Tensor | None = None
        for sweep in range(self.sweeps + 1):
            states, means, guesses = [x], [mean_before], [guess_before]
            # Changes add up along the window, from the last guess that stands.
            total = guess_before
            for j in range(P):
                guess = intercept[:, j] + _like(slope[:, j]) * states[j]
                if change is not None:
                    total = total + change[:, j]
                    guess = torch.where(_like(settled[:, j]), guess, total)
                    total = guess
                guesses.append(guess)
                mean = _like(a[:, j]) * states[j] + _like(b[:, j]) * guess
                means.append(mean)
                states.append(mean + _like(sigma[:, j]) * noise[:, j])
            if sweep == self.sweeps:
                break
            at, anchor = (
                torch.stack(column[:P], dim=1).flatten(0, 1).index_select(0, asked)
                for column in (states, means)
            )
            innovation = (at - anchor) / _like(sigmas)
            answer, after = self.step(at, innovation, times, labels, own, cfg_scale)
            none = torch.zeros_like(x[:1])
            change = torch.cat([none, answer]).index_select(0, slot.flatten()).view_as(noise)
            if carry_next is not None:
                own = torch.cat([feature, after]).index_select(0, carry_next)
        return torch.stack(states, dim=1), torch.stack(means[1:], dim=1)


class DraftSteps(_Draft):
    """A window by autoregression: one drafter call for each transition, the paper's way.

    ``carry [B, P]`` is the row of ``feature`` to start from; where ``own [B, P]`` it is
    what the drafter said one transition before instead.
    """

    def forward(
        self,
        x: Tensor,  # as DraftSweeps
        noise: Tensor,
        a: Tensor,
        b: Tensor,
        sigma: Tensor,
        sigma_before: Tensor,
        t: Tensor,
        y: Tensor,
        slope: Tensor,
        intercept: Tensor,
        settled: Tensor,
        guess_before: Tensor,
        mean_before: Tensor,
        feature: Tensor,
        carry: Tensor,
        own: Tensor,
        cfg_scale: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        states, means = [x], [mean_before]
        guess, after = guess_before, None
        for j in range(self.drafts):
            known = feature.index_select(0, carry[:, j])
            if after is not None:
                axes = [-1] + [1] * (known.dim() - 1)
                known = torch.where(own[:, j].view(axes), after, known)
            innovation = (states[j] - means[j]) / _like(sigma_before[:, j])
            change, after = self.step(states[j], innovation, t[:, j], y, known, cfg_scale)
            kept = intercept[:, j] + _like(slope[:, j]) * states[j]
            guess = torch.where(_like(settled[:, j]), kept, guess + change)
            means.append(_like(a[:, j]) * states[j] + _like(b[:, j]) * guess)
            states.append(means[-1] + _like(sigma[:, j]) * noise[:, j])
        return torch.stack(states, dim=1), torch.stack(means[1:], dim=1)
