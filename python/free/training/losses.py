"""What teacher and drafter are trained on; each loss is one function of one batch."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from free.models.dit import DiT
from free.models.drafter import DrafterNet, eps_from_image, image_from_eps
from free.schedule import Schedule, Table

__all__ = ["ForwardProcess", "drafter_loss", "smoothness", "teacher_loss"]


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


def _drop_labels(
    labels: Tensor, null_label: int, probability: float, generator: torch.Generator
) -> Tensor:
    dropped = torch.rand(labels.shape, generator=generator) < probability
    return torch.where(dropped, null_label, labels)


def teacher_loss(
    teacher: nn.Module,
    process: ForwardProcess,
    x0: Tensor,
    labels: Tensor,
    null_label: int,
    generator: torch.Generator,
    label_dropout: float = 0.1,
) -> dict[str, Tensor]:
    """Mean squared error of the predicted noise at uniform timesteps (Ho et al. 2020, Eq. 14)."""
    t = torch.randint(len(process.alphas_cumprod), labels.shape, generator=generator)
    noise = torch.randn(x0.shape, generator=generator)
    y = _drop_labels(labels, null_label, label_dropout, generator)
    eps = teacher(process(x0, t, noise), t, y).eps
    loss = F.mse_loss(eps.float(), noise)
    return {"loss": loss}


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
    generator: torch.Generator,
    feature_weight: float = 0.5,
    smooth_weight: float = 0.005,
    label_dropout: float = 0.1,
    objective: str = "mse",
) -> dict[str, Tensor]:
    """L_noise + lambda_f L_feat + lambda_s L_smooth (supplement, section A).

    The teacher sees ``x_k``; its own transition of ``schedule`` leads to ``x_{k+1}``, where its
    second pass gives the references. Feature errors are relative to the feature's mean square.

    Parameters
    ----------
    objective : {"mse", "rejection"}
        What L_noise is: the paper's mean squared error, or the probability that the verifier
        rejects the draft, ``1 - 2 Phi(-delta / 2)`` with ``delta = |b| |eps_hat - eps| / sigma``
        (Eq. 40), which is what sampling pays for.

    Returns
    -------
    dict of scalar Tensors
        ``loss`` and its parts ``noise``, ``feature``, ``smooth``, and ``acceptance``, the mean
        of ``2 Phi(-delta / 2)`` over the batch.
    """
    rows = labels.shape[0]
    # Transitions whose successor is still evaluated and coupled: 0 .. N-3.
    k = torch.randint(len(schedule) - 2, (rows,), generator=generator)
    table = Table.of(schedule, x0.device)
    y = _drop_labels(labels, teacher.null_label, label_dropout, generator)
    x = process(x0, table.timesteps[k], torch.randn(x0.shape, generator=generator))
    z = torch.randn(x0.shape, generator=generator)
    with torch.no_grad():
        first = teacher(x, table.timesteps[k], y)
        assert first.feature is not None
        x_next = table.mean(k, x, first.eps) + table.sigma[k].view(-1, 1, 1, 1) * z
        reference = teacher(x_next, table.timesteps[k + 1], y)
        assert reference.feature is not None
        scale = reference.feature.float().square().mean()
        embedding = teacher.label_embedding(y)
        image = image_from_eps(x, first.eps.float(), table.signal[k])

    change, feature = drafter(x_next, table.timesteps[k + 1], embedding, first.feature)
    eps = eps_from_image(x_next, image + change.float(), table.signal[k + 1])
    error = eps - reference.eps.float()
    delta = (table.b[k + 1].abs() / table.sigma[k + 1]) * error.flatten(1).norm(dim=1)
    rejection = torch.erf(delta / math.sqrt(8.0))
    noise = rejection.mean() if objective == "rejection" else error.square().mean()
    feat = (feature.float() - reference.feature.float()).square().mean() / scale
    smooth = smoothness(feature.float(), first.feature.float(), scale)
    return {
        "loss": noise + feature_weight * feat + smooth_weight * smooth,
        "noise": noise.detach(),
        "feature": feat.detach(),
        "smooth": smooth.detach(),
        "acceptance": 1.0 - rejection.detach().mean(),
    }
