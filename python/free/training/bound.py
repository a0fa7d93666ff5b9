"""What a learned variance is trained by: the variational bound of one transition."""

from __future__ import annotations

import functools
import math
from typing import NamedTuple

import torch
from torch import Tensor

from free.schedule.schedule import Schedule
from free.schedule.table import Table

#: Half the distance of two neighbouring levels of 8-bit images in [-1, 1].
_HALF_LEVEL = 1.0 / 255.0


class LogVariances(NamedTuple):
    """Between which a network interpolates: of each transition of a schedule, [N] float32."""

    posterior: Tensor
    upper: Tensor


@functools.lru_cache(maxsize=8)
def log_variances(steps: int, device: torch.device) -> LogVariances:
    """The log-variances of :meth:`free.Schedule.ddpm`.

    The posterior's variance at the last transition is 0. As in improved DDPM, the one before
    stands there.
    """
    alpha_bar = Schedule.ddpm(steps).signal ** 2  # of the noisier state of every transition
    cleaner = torch.tensor([*alpha_bar[1:], 1.0], dtype=torch.float64, device="cpu")
    noisier = torch.tensor(alpha_bar, dtype=torch.float64, device="cpu")
    upper = 1.0 - noisier / cleaner
    posterior = upper * (1.0 - cleaner) / (1.0 - noisier)
    posterior[-1] = posterior[-2]
    return LogVariances(*(v.log().float().to(device) for v in (posterior, upper)))


def variational_bound(
    table: Table,
    k: Tensor,
    x: Tensor,
    *,
    x0: Tensor,
    noise: Tensor,
    eps: Tensor,
    variance: Tensor,
) -> Tensor:
    """L_vlb of transitions in bits an element (Nichol and Dhariwal 2021, Eq. 4 to 7 and 15).

    The divergence of the network's transition from the posterior's; at the last transition the
    negative log-likelihood of the image's 8-bit levels. The mean is not trained by it: no gradient
    flows through ``eps``.

    Parameters
    ----------
    table : Table
        Of :meth:`free.Schedule.ddpm`, one transition for each timestep.
    k : Tensor, shape [R], int64
        Transitions.
    x, x0, noise : Tensor, shape [R, C, H, W], float32
        States, their images and the noise between.
    eps, variance : Tensor, shape [R, C, H, W]
        The network's; ``variance`` interpolates the log-variance, the posterior's at -1 and the
        upper one at 1.

    Returns
    -------
    Tensor, shape [R], float32
    """
    axes, eps = [-1] + [1] * (x.dim() - 1), eps.detach().float()
    low, high = (v[k].view(axes) for v in log_variances(len(table.sigma), x.device))
    log_variance = low + (variance.float() + 1.0) / 2.0 * (high - low)
    shift = table.of_prediction[k].view(axes) * (eps - noise)
    gap = log_variance - low
    divergence = 0.5 * (gap + (-gap).exp() - 1.0 + shift.square() * (-log_variance).exp())
    bound = divergence.flatten(1).mean(1)
    last = k == len(table.sigma) - 1
    if bool(last.any()):
        mean = table.mean(k[last], x[last], table.guess(k[last], x[last], eps[last]))
        nll = -_level_log_likelihood(x0[last], mean, 0.5 * log_variance[last])
        bound = bound.masked_scatter(last, nll.flatten(1).mean(1))
    return bound / math.log(2.0)


def _level_log_likelihood(x0: Tensor, mean: Tensor, log_sigma: Tensor) -> Tensor:
    """Log-probability of the 8-bit level that each element of ``x0`` is, under Gaussians."""
    above = (x0 + _HALF_LEVEL - mean) * (-log_sigma).exp()
    below = (x0 - _HALF_LEVEL - mean) * (-log_sigma).exp()
    inside = (torch.special.ndtr(above) - torch.special.ndtr(below)).clamp_min(1e-12).log()
    low = torch.where(x0 < -0.999, torch.special.log_ndtr(above), inside)
    return torch.where(x0 > 0.999, torch.special.log_ndtr(-below), low)
