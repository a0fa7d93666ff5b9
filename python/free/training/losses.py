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


def smoothness(feature_hat: Tensor, feature_previous: Tensor, scale: Tensor) -> Tensor:
    """Relative squared change of the predicted feature from one step to the next.

    The paper defines its smoothness term in a part that this project does not have; this is
    our reading of "temporal consistency of the top-block features".
    """
    return (feature_hat - feature_previous).square().mean() / scale


def drafter_loss(
    drafter: DrafterNet,
    teacher: DiT,
    process: ForwardProcess,
    schedule: Schedule,
    x0: Tensor,
    labels: Tensor,
    random: RowRandom,
    feature_weight: float = 0.5,
    smooth_weight: float = 0.005,
    label_dropout: float = 0.1,
    objective: str = "mse",
    rollout: int = 1,
) -> dict[str, Tensor]:
    """L_noise + lambda_f L_feat + lambda_s L_smooth (supplement, section A).

    The teacher sees ``x_k``; its own transition of ``schedule`` leads to ``x_{k+1}``, where its
    second pass gives the references. Feature errors are relative to the feature's mean square.

    Parameters
    ----------
    objective : {"mse", "delta"}
        What L_noise is: the paper's mean squared error, or ``log(1 + delta)`` with
        ``delta = |b| |eps_hat - eps| / sigma`` (Eq. 41). For small delta that is proportional to
        the probability of rejection, which is what sampling pays for; unlike that probability
        it still pulls where every draft is rejected.
    rollout : int
        Steps that the drafter feeds on its own output, along the teacher's trajectory; the
        losses are averaged over them. 1 is the paper's recipe.

    Returns
    -------
    dict of scalar Tensors
        ``loss`` and its parts ``noise``, ``feature``, ``smooth``, and ``acceptance``, the mean
        of ``2 Phi(-delta / 2)`` over the batch.
    """
    if objective not in ("mse", "delta"):
        raise ValueError(f"objective must be 'mse' or 'delta', got {objective!r}")
    if not 1 <= rollout <= len(schedule) - 2:
        raise ValueError(
            f"rollout must be in 1..{len(schedule) - 2} for a schedule of {len(schedule)} steps, "
            f"got {rollout}"
        )
    table = Table.of(schedule, x0.device)
    # Every drafted transition is one that is coupled: not the deterministic last.
    k = random.integers(len(schedule) - 1 - rollout)
    y = drop_labels(labels, teacher.null_label, label_dropout, random)
    x = process(x0, table.timesteps[k], random.normal(x0.shape[1:]))
    with torch.no_grad():
        target = teacher(x, table.timesteps[k], y)
        embedding = teacher.label_embedding(y)
    assert target.feature is not None
    feature = target.feature
    image = image_from_eps(x, target.eps.float(), table.signal[k])

    parts = dict.fromkeys(("noise", "feature", "smooth", "acceptance"), torch.zeros(()))
    for _ in range(rollout):
        z = random.normal(x0.shape[1:])
        with torch.no_grad():
            x = torch.addcmul(table.mean(k, x, target.eps), table.sigma[k].view(-1, 1, 1, 1), z)
            k = k + 1
            target = teacher(x, table.timesteps[k], y)
        assert target.feature is not None
        scale = target.feature.float().square().mean()
        previous = feature
        change, feature = drafter(x, z, table.timesteps[k], embedding, previous)
        image = image + change.float()
        error = eps_from_image(x, image, table.signal[k]) - target.eps.float()
        delta = (table.b[k].abs() / table.sigma[k]) * error.flatten(1).norm(dim=1)
        by_delta = torch.log1p(delta).mean()
        for name, value in (
            ("noise", by_delta if objective == "delta" else error.square().mean()),
            ("feature", (feature.float() - target.feature.float()).square().mean() / scale),
            ("smooth", smoothness(feature.float(), previous.float(), scale)),
            ("acceptance", torch.erfc(delta / math.sqrt(8.0)).mean()),
        ):
            parts[name] = parts[name] + value / rollout
    loss = parts["noise"] + feature_weight * parts["feature"] + smooth_weight * parts["smooth"]
    return {"loss": loss, **{name: value.detach() for name, value in parts.items()}}
