"""What a drafter is shown in training: windows of drafts, and what the teacher says to them.

Each way of drafting is one function of a :class:`Rollout`; all start with the teacher's pass at
``x_k`` and its own transition to ``x_{k+1}``, where the first draft starts. No gradient flows
through states or the teacher.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from free.drafters.feature import evaluate
from free.models.dit import DiT
from free.models.guidance import Guidance, GuidedTeacher
from free.models.output import TeacherOutput
from free.schedule.schedule import Schedule
from free.schedule.table import Prediction, Table

__all__ = ["Drafts", "Rollout", "autoregression", "follow_teacher", "prediction_of", "sweep"]


@functools.lru_cache(maxsize=8)
def prediction_of(steps: int, device: torch.device) -> Prediction:
    """The DDPM schedule of ``steps`` on ``device``, in terms of x0; made once."""
    return Prediction.of(Table.of(Schedule.ddpm(steps), device))


class Drafts(NamedTuple):
    """Drafts of ``P`` transitions for each of ``R`` rows.

    Attributes
    ----------
    states : Tensor, shape [R, P, C, H, W], float32
        Where the transitions start.
    image : Tensor, shape [R, P, C, H, W], float32
        The drafter's guesses of x0; with a gradient, and so is the feature.
    feature, previous : Tensor, shape [R, P, T, E], under guidance [R, P, 2, T, E]
        What the drafter said of the top block, and what it was given of the transition before.
    target : TeacherOutput
        The teacher's eps and features at the states, both with the axis ``P``.
    """

    states: Tensor
    image: Tensor
    feature: Tensor
    previous: Tensor
    target: TeacherOutput


class Rollout:
    """The teacher's first pass, and the networks as a sampler runs them.

    Parameters
    ----------
    drafter : nn.Module
        A DrafterNet, or what wraps one.
    teacher : DiT
    prediction : Prediction
        The schedule; its last transition is not drafted.
    guidance : Guidance or None
    x : Tensor, shape [R, C, H, W], float32
        States of the first pass.
    k : Tensor, shape [R], int64
        Their transitions.
    y : Tensor, shape [R], int64
    noise : Tensor, shape [R, P, C, H, W], float32
        z of the transitions that lead to the states drafted from.
    """

    def __init__(
        self,
        drafter: nn.Module,
        teacher: DiT,
        prediction: Prediction,
        guidance: Guidance | None,
        x: Tensor,
        k: Tensor,
        y: Tensor,
        noise: Tensor,
    ) -> None:
        self._drafter, self._guidance, self._y = drafter, guidance, y
        self._teacher = teacher if guidance is None else GuidedTeacher(teacher, guidance)
        self._embedding = torch.no_grad()(teacher.label_embedding)
        self.prediction, self.table = prediction, prediction.table
        self.noise, self.length = noise, noise.shape[1]
        # Where the schedule ends the last draft is repeated; `real` says which count.
        at = k[:, None] + 1 + torch.arange(self.length, device=k.device)
        last = len(prediction.sigma) - 2
        self.k, self.real = at.clamp(max=last), at <= last
        out = self.teach(x, k)
        assert out.feature is not None
        self.feature = out.feature
        self.image = prediction.from_eps(k, x, out.eps)
        # Where the first draft starts.
        self.x = self._next(k, x, self.image, noise[:, 0])

    @torch.no_grad()
    def teach(self, x: Tensor, k: Tensor) -> TeacherOutput:
        """The teacher's (guided) eps and features at states ``x`` of transitions ``k``.

        Rows first, [R, ...], or windows, [R, P, ...].
        """
        shape = k.shape
        y = self._y.view(-1, *[1] * (k.dim() - 1)).expand(shape).flatten()
        x, k = x.flatten(0, k.dim() - 1), k.flatten()
        out = self._teacher(x, self.table.timesteps[k], y)
        assert out.feature is not None
        return TeacherOutput(
            out.eps.float().unflatten(0, shape), out.feature.float().unflatten(0, shape)
        )

    def ask(self, x: Tensor, noise: Tensor, k: Tensor, feature: Tensor) -> tuple[Tensor, Tensor]:
        """The drafter's change of x0 and its feature; shapes as of :meth:`teach`."""
        shape = k.shape
        y = self._y.view(-1, *[1] * (k.dim() - 1)).expand(shape).flatten()
        rows = (part.flatten(0, k.dim() - 1) for part in (x, noise, k, feature))
        x, noise, k, feature = rows
        t = self.table.timesteps[k]
        answer = evaluate(
            self._drafter,
            self._embedding,
            x=x,
            innovation=noise,
            t=t,
            y=y,
            feature=feature,
            guidance=self._guidance,
        )
        change, feature = (part.float().unflatten(0, shape) for part in answer)
        return change, feature

    @torch.no_grad()
    def follow(self, j: int, x: Tensor, image: Tensor) -> Tensor:
        """From where draft ``j`` starts to where the next one does, by a guess of x0."""
        return self._next(self.k[:, j], x, image, self.noise[:, j + 1])

    def roll(self, image: Tensor) -> Tensor:
        """The states [R, P, C, H, W] of a window by guesses of x0, of that shape."""
        states = [self.x]
        for j in range(self.length - 1):
            states.append(self.follow(j, states[j], image[:, j]))
        return torch.stack(states, dim=1)

    def _next(self, k: Tensor, x: Tensor, image: Tensor, noise: Tensor) -> Tensor:
        mean = self.prediction.mean(k, x, image)
        return torch.addcmul(mean, self.prediction.sigma[k].view(-1, 1, 1, 1), noise)


def _windows(steps: Sequence[tuple[Tensor, ...]]) -> list[Tensor]:
    """Columns of steps, [R, ...] each, as [R, P, ...]."""
    return [torch.stack(column, dim=1) for column in zip(*steps, strict=True)]


def follow_teacher(rollout: Rollout) -> Drafts:
    """One draft after the other, fed with the drafter's own features, at states that the teacher's
    means lead to.
    """
    x, image, feature = rollout.x, rollout.image, rollout.feature
    steps = []
    for j in range(rollout.length):
        k = rollout.k[:, j]
        target = rollout.teach(x, k)
        assert target.feature is not None
        change, after = rollout.ask(x, rollout.noise[:, j], k, feature)
        image = image + change
        steps.append((x, image, after, feature, target.eps, target.feature))
        feature = after
        if j + 1 < rollout.length:
            x = rollout.follow(j, x, rollout.prediction.from_eps(k, x, target.eps))
    states, images, own, given, eps, taught = _windows(steps)
    return Drafts(states, images, own, given, TeacherOutput(eps, taught))


def autoregression(rollout: Rollout) -> Drafts:
    """One draft after the other, each at the state that the drafter's own mean leads to: the
    paper's way to draft.
    """
    x, image, feature = rollout.x, rollout.image, rollout.feature
    steps = []
    for j in range(rollout.length):
        change, after = rollout.ask(x, rollout.noise[:, j], rollout.k[:, j], feature)
        image = image + change
        steps.append((x, image, after, feature))
        feature = after
        if j + 1 < rollout.length:
            x = rollout.follow(j, x, image)
    states, images, own, given = _windows(steps)
    return Drafts(states, images, own, given, rollout.teach(states, rollout.k))


def sweep(rollout: Rollout, sweeps: int) -> Drafts:
    """The whole window at once: guess that x0 stays, roll, ask the drafter everywhere, roll again.

    As :func:`free.rounds.draft.draft_window` drafts where nothing is recycled. The drafts are judged at
    the states that the last guesses lead to.
    """
    stays = rollout.image[:, None].expand_as(rollout.noise)
    states = rollout.roll(stays)
    # Until the drafter has been asked, the nearest feature there is.
    first = rollout.feature[:, None]
    previous = first.expand(-1, rollout.length, *first.shape[2:])
    image, feature = stays, previous
    for turn in range(sweeps):
        if turn:
            previous = torch.cat([first, feature[:, :-1]], dim=1)
        change, feature = rollout.ask(states, rollout.noise, rollout.k, previous)
        image = stays + change.cumsum(dim=1)
        states = rollout.roll(image)
    return Drafts(states, image, feature, previous, rollout.teach(states, rollout.k))
