"""What teacher and drafter are trained on; each loss is one function of one batch."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from free.models.dit import DiT
from free.models.drafter import DrafterNet
from free.prediction import eps_from_image, image_from_eps
from free.schedule import Schedule, Table
from free.training.randomness import RowRandom
from free.training.recipe import Recipe

__all__ = ["ForwardProcess", "drafter_loss", "drop_labels", "smoothness", "teacher_loss"]


class ForwardProcess:
    """The noising that the teacher was trained with: x_t = sqrt(abar_t) x_0 + sqrt(1-abar_t) eps.

    Parameters
    ----------
    train_steps : int
    beta_start, beta_end : float
        Ends of the linear schedule.
    """

    def __init__(
        self, train_steps: int = 1000, beta_start: float = 1e-4, beta_end: float = 2e-2
    ) -> None:
        beta = torch.linspace(beta_start, beta_end, train_steps, dtype=torch.float64)
        self.alphas_cumprod = (1.0 - beta).cumprod(0)

    def __call__(self, x0: Tensor, t: Tensor, noise: Tensor) -> Tensor:
        """The state [R, ...] of images ``x0`` at timesteps ``t [R]``."""
        abar = self.alphas_cumprod[t].view(-1, *[1] * (x0.dim() - 1))
        return abar.sqrt().float() * x0 + (1.0 - abar).sqrt().float() * noise


def drop_labels(labels: Tensor, null_label: int, probability: float, random: RowRandom) -> Tensor:
    """``labels [R]``, each replaced by the null class with a probability."""
    dropped = random.uniform() < probability
    return torch.where(dropped, null_label, labels)


def teacher_loss(
    teacher: nn.Module,
    process: ForwardProcess,
    x0: Tensor,
    labels: Tensor,
    null_label: int,
    random: RowRandom,
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
    t = random.integers(len(process.alphas_cumprod))
    noise = random.normal(x0.shape[1:])
    y = drop_labels(labels, null_label, label_dropout, random)
    eps = teacher(process(x0, t, noise), t, y).eps
    error = (eps.float() - noise).square().flatten(1).mean(1)
    if min_snr is not None:
        snr = process.alphas_cumprod[t] / (1.0 - process.alphas_cumprod[t])
        error = error * (snr.clamp(max=min_snr) / snr).float()
    return {"loss": error.mean()}


def relative_error(feature_hat: Tensor, feature: Tensor, scale: Tensor) -> Tensor:
    """Squared difference of features [R, T, E], a row, in units of ``scale [R]``."""
    return (feature_hat.float() - feature.float()).square().flatten(1).mean(1) / scale


def smoothness(feature_hat: Tensor, feature_previous: Tensor, scale: Tensor) -> Tensor:
    """Relative squared change [R] of the predicted feature from one step to the next.

    The paper defines its smoothness term in a part that this project does not have; this is
    our reading of "temporal consistency of the top-block features".
    """
    return relative_error(feature_hat, feature_previous, scale)


def drafter_loss(
    drafter: DrafterNet,
    teacher: DiT,
    process: ForwardProcess,
    x0: Tensor,
    labels: Tensor,
    random: RowRandom,
    recipe: Recipe,
) -> dict[str, Tensor]:
    """L_noise + lambda_f L_feat + lambda_s L_smooth (supplement, section A).

    The teacher sees ``x_k``; its own transition of the sampling schedule leads to ``x_{k+1}``,
    where its second pass gives the references. Feature errors are relative to the mean square of
    the row's feature, so that a batch's loss is the mean of its rows'.

    Returns
    -------
    dict of scalar Tensors
        ``loss`` and its parts ``noise``, ``feature``, ``smooth``, and ``acceptance``, the mean
        of ``2 Phi(-delta / 2)`` over the batch.
    """
    schedule = Schedule.ddpm(recipe.sampling_steps)
    table = Table.of(schedule, x0.device)
    # Every drafted transition is one that is coupled: not the deterministic last.
    k = random.integers(len(schedule) - 1 - recipe.rollout)
    y = drop_labels(labels, teacher.null_label, recipe.label_dropout, random)
    x = process(x0, table.timesteps[k], random.normal(x0.shape[1:]))
    with torch.no_grad():
        target = teacher(x, table.timesteps[k], y)
        embedding = teacher.label_embedding(y)
    assert target.feature is not None
    feature = target.feature
    image = image_from_eps(x, target.eps.float(), table.signal[k])

    parts = dict.fromkeys(("noise", "feature", "smooth", "acceptance"), torch.zeros(()))
    for _ in range(recipe.rollout):
        z = random.normal(x0.shape[1:])
        with torch.no_grad():
            x = torch.addcmul(table.mean(k, x, target.eps), table.sigma[k].view(-1, 1, 1, 1), z)
            k = k + 1
            target = teacher(x, table.timesteps[k], y)
        assert target.feature is not None
        scale = target.feature.float().square().flatten(1).mean(1)
        previous = feature
        change, feature = drafter(x, z, table.timesteps[k], embedding, previous)
        image = image + change.float()
        error = eps_from_image(x, image, table.signal[k]) - target.eps.float()
        delta = (table.b[k].abs() / table.sigma[k]) * error.flatten(1).norm(dim=1)
        by_delta = torch.log1p(delta).mean()
        for name, value in (
            ("noise", by_delta if recipe.objective == "delta" else error.square().mean()),
            ("feature", relative_error(feature, target.feature, scale).mean()),
            ("smooth", smoothness(feature, previous, scale).mean()),
            ("acceptance", torch.erfc(delta / math.sqrt(8.0)).mean()),
        ):
            parts[name] = parts[name] + value / recipe.rollout
    loss = (
        parts["noise"]
        + recipe.feature_weight * parts["feature"]
        + recipe.smooth_weight * parts["smooth"]
    )
    return {"loss": loss, **{name: value.detach() for name, value in parts.items()}}
