"""What teacher and drafter are trained on; each loss is one function of one batch."""

from __future__ import annotations

import functools
import math

import torch
from torch import Tensor, nn

from free.models.dit import DiT
from free.schedule.schedule import Schedule
from free.schedule.table import Table, eps_from_image
from free.training.bound import variational_bound
from free.training.randomness import RowRandom
from free.training.recipe import Recipe

#: Of the noising that teachers are trained with; its schedule has a transition for each.
TIMESTEPS = 1000


@functools.lru_cache(maxsize=8)
def table_of(steps: int, device: torch.device) -> Table:
    """The DDPM schedule of ``steps`` on ``device``; built once."""
    return Table.of(Schedule.ddpm(steps), device)


def noised(table: Table, k: Tensor, x0: Tensor, noise: Tensor) -> Tensor:
    """The states [R, ...] that images ``x0 [R, ...]`` have become before transitions ``k [R]``."""
    axes = [-1] + [1] * (x0.dim() - 1)
    return table.signal[k].view(axes) * x0 + table.noise[k].view(axes) * noise


def drop_labels(
    labels: Tensor, null_label: int | None, probability: float, random: RowRandom
) -> Tensor:
    """``labels [R]``, each replaced by the null class, if there is one, with a probability."""
    if null_label is None:
        return labels
    dropped = random.uniform() < probability
    return torch.where(dropped, null_label, labels)


def teacher_loss(
    teacher: nn.Module,
    x0: Tensor,
    labels: Tensor,
    random: RowRandom,
    *,
    null_label: int | None,
    label_dropout: float = 0.1,
    min_snr: float | None = None,
) -> dict[str, Tensor]:
    """Mean squared error of the predicted noise at uniform timesteps (Ho et al. 2020, Eq. 14).

    A teacher with a learned variance is trained by the variational bound too, which moves nothing
    but the variance: L_hybrid of Nichol and Dhariwal (2021, Eq. 16), as DiT.

    Parameters
    ----------
    min_snr : float, optional
        Weigh timesteps by ``min(SNR, min_snr) / SNR`` (Hang et al. 2023, Eq. 8): less effort on the
        last bit of noise, more on the shape. 5 is their choice.

    Returns
    -------
    dict of scalar Tensors
        ``loss``; with a learned variance its parts ``noise`` and ``bound`` too, the latter in bits
        an element.
    """
    table = table_of(TIMESTEPS, x0.device)
    t = random.integers(TIMESTEPS)
    k = TIMESTEPS - 1 - t
    noise = random.normal(x0.shape[1:])
    y = drop_labels(labels, null_label, label_dropout, random)
    x = noised(table, k, x0, noise)
    out = teacher(x, t, y)
    error = (out.eps.float() - noise).square().flatten(1).mean(1)
    if min_snr is not None:
        snr = (table.signal[k] / table.noise[k]).square()
        error = error * (snr.clamp(max=min_snr) / snr)
    if out.variance is None:
        return {"loss": error.mean()}
    bound = variational_bound(table, k, x, x0=x0, noise=noise, eps=out.eps, variance=out.variance)
    parts = {"noise": error.mean(), "bound": bound.mean()}
    return {
        "loss": parts["noise"] + parts["bound"],
        **{name: part.detach() for name, part in parts.items()},
    }


def relative_error(feature_hat: Tensor, feature: Tensor, scale: Tensor) -> Tensor:
    """Mean squared difference [R] of features [R, T, E], in units of ``scale [R]``."""
    return (feature_hat - feature).square().flatten(1).mean(1) / scale


def smoothness(feature_hat: Tensor, feature_previous: Tensor, scale: Tensor) -> Tensor:
    """Relative squared change [R] of the predicted feature from one step to the next.

    The paper defines its smoothness term in a part that this project does not have; this is
    our reading of "temporal consistency of the top-block features".
    """
    return relative_error(feature_hat, feature_previous, scale)


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

    The teacher sees ``x_k`` of a uniform transition ``k``, and its own transition leads to
    ``x_{k+1}``. There the drafter is given the feature of ``x_k``, and compared with the teacher.
    Feature errors are relative to the mean square of the feature itself. A batch's loss is the
    mean of its rows'.

    Parameters
    ----------
    drafter : nn.Module
        A DrafterNet, or what wraps one.
    x0 : Tensor, shape [R, C, H, W], float32
    labels : Tensor, shape [R], int64
    random : RowRandom
        Of these rows.
    teacher : DiT
        No gradient flows through it, nor through states.
    recipe : Recipe

    Returns
    -------
    dict of scalar Tensors
        ``loss`` and its parts ``noise``, ``feature``, ``smooth``, and ``acceptance``, the mean
        of ``2 Phi(-delta / 2)``.
    """
    table = table_of(recipe.sampling_steps, x0.device)
    # The last transition has no noise, so it is not drafted: k + 1 is at most the one before.
    k = random.integers(recipe.sampling_steps - 2)
    y = drop_labels(labels, teacher.null_label, recipe.label_dropout, random)
    x = noised(table, k, x0, random.normal(x0.shape[1:]))
    z = random.normal(x0.shape[1:])
    with torch.no_grad():
        eps, previous = _predicted(teacher, x, table.timesteps[k], y)
        image = table.guess(k, x, eps)
        axes = [-1] + [1] * (x.dim() - 1)
        x = table.mean(k, x, image) + table.sigma[k].view(axes) * z
        k = k + 1
        t = table.timesteps[k]
        eps, feature = _predicted(teacher, x, t, y)
        embedding = teacher.label_embedding(y)
    change, feature_hat = drafter(x, z, t, embedding, previous)
    eps_hat = eps_from_image(x, image + change.float(), table.signal[k], table.noise[k])
    error, feature_hat = (eps_hat - eps).flatten(1), feature_hat.float()
    delta = (table.of_prediction[k].abs() / table.sigma[k]) * error.norm(dim=1)
    scale = feature.square().flatten(1).mean(1)
    terms = {
        "noise": error.square().mean(1) if recipe.objective == "mse" else torch.log1p(delta),
        "feature": relative_error(feature_hat, feature, scale),
        "smooth": smoothness(feature_hat, previous, scale),
        "acceptance": torch.erfc(delta / math.sqrt(8.0)),
    }
    parts = {name: term.mean() for name, term in terms.items()}
    loss = (
        parts["noise"]
        + recipe.feature_weight * parts["feature"]
        + recipe.smooth_weight * parts["smooth"]
    )
    return {"loss": loss, **{name: value.detach() for name, value in parts.items()}}


def _predicted(teacher: DiT, x: Tensor, t: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """The teacher's eps and feature, float32."""
    out = teacher(x, t, y)
    assert out.feature is not None
    return out.eps.float(), out.feature.float()
