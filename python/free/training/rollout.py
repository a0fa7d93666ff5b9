"""What a drafter is shown in training: windows of drafts, and what the teacher says to them.

All ways to draft start with the teacher's pass at ``x_k`` and its own transition to ``x_{k+1}``,
where the first draft starts. States are rolled by the sampler's own op, so that what is trained is
what is sampled. No gradient flows through states or the teacher.
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
from free.ops import roll_window_
from free.schedule.schedule import Schedule
from free.schedule.table import Prediction, Table


@functools.lru_cache(maxsize=8)
def prediction_of(steps: int, device: torch.device) -> Prediction:
    """The DDPM schedule of ``steps`` on ``device``, in terms of x0; built once."""
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
        What the drafter predicts of the top block, and what it was given of the transition before.
    target_eps, target_feature : Tensor, like ``image`` and ``feature``
        The teacher's at the states.
    """

    states: Tensor
    image: Tensor
    feature: Tensor
    previous: Tensor
    target_eps: Tensor
    target_feature: Tensor


class Rollout:
    """A window while it is drafted, and the networks as a sampler runs them.

    Parameters
    ----------
    drafter : nn.Module
        A DrafterNet, or what wraps one.
    teacher : DiT
    prediction : Prediction
        The schedule; its last transition is not drafted.
    guidance : Guidance or None
    x : Tensor, shape [R, C, H, W], float32
        States of the teacher's first pass.
    k : Tensor, shape [R], int64
        Their transitions.
    y : Tensor, shape [R], int64
    noise : Tensor, shape [R, P, C, H, W], float32
        z of the transitions that lead to the states drafted from.

    Attributes
    ----------
    k, real : Tensor, shape [R, P]
        The drafted transitions, and which of them count: where the schedule ends the last one is
        repeated.
    feature, image : Tensor, shape [R, ...]
        What the teacher says of the first state.
    """

    def __init__(
        self,
        drafter: nn.Module,
        teacher: DiT,
        prediction: Prediction,
        guidance: Guidance | None,
        *,
        x: Tensor,
        k: Tensor,
        y: Tensor,
        noise: Tensor,
    ) -> None:
        self._drafter, self._guidance, self._y = drafter, guidance, y
        self._teacher = teacher if guidance is None else GuidedTeacher(teacher, guidance)
        self._embedding = torch.no_grad()(teacher.label_embedding)
        self.prediction, self.noise, self.length = prediction, noise.contiguous(), noise.shape[1]
        at = k[:, None] + torch.arange(self.length + 1, device=k.device)
        last = len(prediction.sigma) - 2
        self.real = at[:, 1:] <= last
        at = at.clamp(max=last)
        self.k = at[:, 1:]
        eps, self.feature = self.teach(x, k)
        self.image = prediction.from_eps(k, x, eps)
        # Entry j of the window is the state that transition k + j starts from.
        self._coefficients = prediction.at(at)
        self._window = torch.cat([x[:, None], torch.zeros_like(noise)], dim=1)
        self._guess = torch.zeros_like(noise)
        self._roll(0, self.image[:, None])

    # Networks keep what they are given for their backward pass, and the window goes on: clones.

    @property
    def states(self) -> Tensor:
        """Where the drafted transitions start, [R, P, C, H, W]."""
        return self._window[:, 1:].clone()

    def state(self, j: int) -> Tensor:
        """Where draft ``j`` starts, [R, C, H, W]."""
        return self._window[:, j + 1].clone()

    @torch.no_grad()
    def teach(self, x: Tensor, k: Tensor) -> tuple[Tensor, Tensor]:
        """The teacher's (guided) eps and features at states ``x`` of transitions ``k``.

        Rows first, [R, ...], or windows, [R, P, ...].
        """
        t = self.prediction.table.timesteps[k.flatten()]
        out = self._teacher(x.flatten(0, k.dim() - 1), t, self._labels(k))
        assert out.feature is not None
        return out.eps.float().unflatten(0, k.shape), out.feature.float().unflatten(0, k.shape)

    def ask(self, x: Tensor, noise: Tensor, k: Tensor, feature: Tensor) -> tuple[Tensor, Tensor]:
        """The drafter's change of x0 and its feature; shapes as of :meth:`teach`."""
        x, noise, feature = (part.flatten(0, k.dim() - 1) for part in (x, noise, feature))
        answer = evaluate(
            self._drafter,
            self._embedding,
            x=x,
            innovation=noise,
            t=self.prediction.table.timesteps[k.flatten()],
            y=self._labels(k),
            feature=feature,
            guidance=self._guidance,
        )
        change, feature = (part.float().unflatten(0, k.shape) for part in answer)
        return change, feature

    def follow(self, j: int, guess: Tensor) -> Tensor:
        """The state that a guess ``[R, ...]`` of x0 at draft ``j`` leads to."""
        self._roll(j + 1, guess[:, None])
        return self.state(j + 1)

    def roll(self, guesses: Tensor) -> Tensor:
        """The states that guesses ``[R, P, ...]`` of x0 lead to, all of the window's."""
        self._roll(1, guesses[:, :-1])
        return self.states

    @torch.no_grad()
    def _roll(self, first: int, guesses: Tensor) -> None:
        """Roll on from entry ``first`` of the window, as far as there are guesses."""
        end = first + guesses.shape[1]
        self._guess[:, first:end] = guesses
        a, b, sigma = self._coefficients
        roll_window_(
            self._window,
            torch.empty_like(self._window),
            torch.empty_like(self._window),
            self.noise,
            self._guess,
            torch.zeros_like(a[:, :-1]),
            change=None,
            settled=None,
            adds=False,
            a=a,
            b=b,
            sigma=sigma,
            first=first,
            end=end,
        )

    def _labels(self, k: Tensor) -> Tensor:
        return self._y.view(-1, *[1] * (k.dim() - 1)).expand(k.shape).flatten()


def _windows(steps: Sequence[tuple[Tensor, ...]]) -> list[Tensor]:
    """Columns of steps, [R, ...] each, as [R, P, ...]."""
    return [torch.stack(column, dim=1) for column in zip(*steps, strict=True)]


def in_turn(rollout: Rollout, *, follow_teacher: bool = False) -> Drafts:
    """One draft after the other, fed with the drafter's own features: the paper's way to draft.

    States are those that the drafter's own means lead to, or the teacher's.
    """
    x, image, feature = rollout.state(0), rollout.image, rollout.feature
    steps, taught = [], []
    for j in range(rollout.length):
        k = rollout.k[:, j]
        change, after = rollout.ask(x, rollout.noise[:, j], k, feature)
        image = image + change
        steps.append((image, after, feature))
        feature, guess = after, image
        if follow_teacher:
            taught.append(rollout.teach(x, k))
            guess = rollout.prediction.from_eps(k, x, taught[-1][0])
        if j + 1 < rollout.length:
            x = rollout.follow(j, guess)
    states = rollout.states
    targets = _windows(taught) if follow_teacher else rollout.teach(states, rollout.k)
    return Drafts(states, *_windows(steps), *targets)


def sweep(rollout: Rollout, sweeps: int) -> Drafts:
    """The whole window at once: guess that x0 stays, roll, ask the drafter everywhere, roll again.

    So does :func:`free.rounds.draft.draft_window` where nothing is recycled. The drafts are judged
    at the states that the last guesses lead to.
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
    return Drafts(states, image, feature, previous, *rollout.teach(states, rollout.k))
