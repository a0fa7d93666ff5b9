"""What teacher and drafter are trained on; each loss is one function of one batch."""

from __future__ import annotations

import functools
import math

import torch
from torch import Tensor, nn

from free.models.dit import DiT
from free.rounds.target import guidance_of
from free.schedule.table import Table, eps_from_image
from free.training.randomness import RowRandom
from free.training.recipe import REJECTIONS, Recipe
from free.training.rollout import (
    Drafts,
    Rollout,
    in_turn,
    prediction_of,
    sweep,
)

#: Of the noising that teachers are trained with; its schedule has a transition for each.
TIMESTEPS = 1000


def noised(table: Table, k: Tensor, x0: Tensor, noise: Tensor) -> Tensor:
    """The states [R, ...] that images ``x0 [R, ...]`` have become before transitions ``k [R]``."""
    axes = [-1] + [1] * (x0.dim() - 1)
    return table.signal[k].view(axes) * x0 + table.noise[k].view(axes) * noise


def drop_labels(labels: Tensor, null_label: int, probability: float, random: RowRandom) -> Tensor:
    """``labels [R]``, each replaced by the null class with a probability."""
    dropped = random.uniform() < probability
    return torch.where(dropped, null_label, labels)


def teacher_loss(
    teacher: nn.Module,
    x0: Tensor,
    labels: Tensor,
    random: RowRandom,
    *,
    null_label: int,
    label_dropout: float = 0.1,
    min_snr: float | None = None,
) -> dict[str, Tensor]:
    """Mean squared error of the predicted noise at uniform timesteps (Ho et al. 2020, Eq. 14).

    Parameters
    ----------
    min_snr : float, optional
        Weigh timesteps by ``min(SNR, min_snr) / SNR`` (Hang et al. 2023, Eq. 8): less effort on the
        last bit of noise, more on the shape. 5 is their choice.
    """
    table = prediction_of(TIMESTEPS, x0.device).table
    t = random.integers(TIMESTEPS)
    k = TIMESTEPS - 1 - t
    noise = random.normal(x0.shape[1:])
    y = drop_labels(labels, null_label, label_dropout, random)
    eps = teacher(noised(table, k, x0, noise), t, y).eps
    error = (eps.float() - noise).square().flatten(1).mean(1)
    if min_snr is not None:
        snr = (table.signal[k] / table.noise[k]).square()
        error = error * (snr.clamp(max=min_snr) / snr)
    return {"loss": error.mean()}


def relative_error(feature_hat: Tensor, feature: Tensor, scale: Tensor) -> Tensor:
    """Squared difference [R, P] of features [R, P, ...], in units of ``scale [R, P]``."""
    return (feature_hat - feature).square().flatten(2).mean(2) / scale


def smoothness(feature_hat: Tensor, feature_previous: Tensor, scale: Tensor) -> Tensor:
    """Relative squared change [R, P] of the predicted feature from one step to the next.

    The paper defines its smoothness term in a part that this project does not have; this is
    our reading of "temporal consistency of the top-block features".
    """
    return relative_error(feature_hat, feature_previous, scale)


def first_transitions(recipe: Recipe, steps: int, random: RowRandom) -> Tensor:
    """Where the teacher's first passes are, ``k [R]``; the first draft is of ``k + 1``.

    Parameters
    ----------
    recipe : Recipe
    steps : int
        Length of the schedule. Its last transition is not coupled, hence not drafted.
    random : RowRandom
    """
    if recipe.times == "uniform":
        return random.integers(steps - 2)
    u = random.uniform().double()
    return torch.searchsorted(_cumulative(steps, u.device), u, right=True).clamp(max=steps - 3)


@functools.lru_cache(maxsize=8)
def _cumulative(steps: int, device: torch.device) -> Tensor:
    """Distribution function of ``k`` where drafts are rejected: half of it is uniform."""
    part = torch.arange(1, steps - 1, device=device) * len(REJECTIONS) // steps
    often = torch.tensor(REJECTIONS, dtype=torch.float64, device=device)[part]
    return (0.5 * often / often.sum() + 0.5 / len(often)).cumsum(0)


def drafter_loss(
    drafter: nn.Module,
    x0: Tensor,
    labels: Tensor,
    random: RowRandom,
    *,
    teacher: DiT,
    recipe: Recipe,
) -> dict[str, Tensor]:
    """L_noise + lambda_f L_feat + lambda_s L_smooth (supplement, section A).

    The teacher sees ``x_k``; drafts start from ``x_{k+1}``, where its own transition leads, and
    are compared with what it says at the states drafted from (:mod:`free.training.rollout`).
    Feature errors are relative to the mean square of the feature itself. A row's loss is the
    mean over its drafts, and a batch's is the mean of its rows'.

    Returns
    -------
    dict of scalar Tensors
        ``loss`` and its parts ``noise``, ``feature``, ``smooth``, and ``acceptance``, the mean
        of ``2 Phi(-delta / 2)``.
    """
    steps = recipe.sampling_steps if recipe.stride == "sampling" else TIMESTEPS
    prediction = prediction_of(steps, x0.device)
    table = prediction.table
    guidance = guidance_of(teacher, recipe.guidance, None)
    k = first_transitions(recipe, steps, random)
    dropped = recipe.label_dropout if guidance is None else 0.0
    y = drop_labels(labels, teacher.null_label, dropped, random)
    x = noised(table, k, x0, random.normal(x0.shape[1:]))
    noise = torch.stack([random.normal(x0.shape[1:]) for _ in range(recipe.rollout)], dim=1)
    rollout = Rollout(drafter, teacher, prediction, guidance, x=x, k=k, y=y, noise=noise)
    if recipe.fed == "sweeps":
        drafts = sweep(rollout, recipe.sweeps)
    else:
        drafts = in_turn(rollout, follow_teacher=recipe.fed == "teacher")
    terms = _terms(drafts, rollout.k, table, recipe.objective)
    share = rollout.real / rollout.real.sum(dim=1, keepdim=True)
    parts = {name: (term * share).sum(dim=1).mean() for name, term in terms.items()}
    loss = (
        parts["noise"]
        + recipe.feature_weight * parts["feature"]
        + recipe.smooth_weight * parts["smooth"]
    )
    return {"loss": loss, **{name: value.detach() for name, value in parts.items()}}


def _terms(drafts: Drafts, k: Tensor, table: Table, objective: str) -> dict[str, Tensor]:
    """Parts of the loss and the acceptance, [R, P] each; ``k [R, P]`` are the transitions."""
    at = k.flatten()
    states, images = drafts.states.flatten(0, 1), drafts.image.flatten(0, 1)
    eps = eps_from_image(states, images, table.signal[at], table.noise[at])
    error = (eps.view_as(drafts.target_eps) - drafts.target_eps).flatten(2)
    delta = (table.b[k].abs() / table.sigma[k]) * error.norm(dim=2)
    if objective == "mse":
        noise = error.square().mean(dim=2)
    else:
        noise = torch.log1p(delta) if objective == "delta" else delta.square()
    scale = drafts.target_feature.square().flatten(2).mean(dim=2)
    return {
        "noise": noise,
        "feature": relative_error(drafts.feature, drafts.target_feature, scale),
        "smooth": smoothness(drafts.feature, drafts.previous, scale),
        "acceptance": torch.erfc(delta / math.sqrt(8.0)),
    }
