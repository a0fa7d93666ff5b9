"""Variances from data: fitted to a teacher's own, or trained on images."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from free.models.guidance import GuidedTeacher
from free.models.output import Teacher, TeacherOutput
from free.rounds.target import guidance_of
from free.sampling.request import Progress, check_request
from free.sampling.sequential import SequentialSampler
from free.schedule.schedule import Schedule
from free.schedule.table import Table
from free.schedule.variance import VarianceFit
from free.training.losses import drop_labels, noised
from free.training.randomness import RowRandom


def fit_variance(
    teacher: Teacher,
    labels: Tensor | Sequence[int],
    steps: int = 250,
    seed: int | Tensor | Sequence[int] = 0,
    cfg_scale: float = 1.0,
    cfg_channels: int | None = None,
    *,
    shape: Sequence[int] | None = None,
    progress: Progress = False,
) -> VarianceFit:
    """The temporal pattern of a teacher's learned variance, along its own trajectories.

    A step's weight belongs to the mean, over samples and elements, of the variances that the
    teacher returns: the one number that fits them best as Gaussians (in the divergence from them).

    Parameters
    ----------
    teacher : callable
        Its ``variance`` is interpolated as DiT's: log-variance from the posterior's at -1 to
        beta's at 1.
    labels, seed, cfg_scale, cfg_channels, shape, progress
        Of the run, as for :class:`free.SequentialSampler`; under guidance the variance is the
        conditional one.
    steps : int
        Of :meth:`free.Schedule.ddpm`, whose posterior variances are sampled with.

    Raises
    ------
    ValueError
        If the teacher has no learned variance, or it is not finite; if the request is malformed.
    """
    guidance = guidance_of(teacher, cfg_scale, cfg_channels)
    guided: Any = teacher if guidance is None else GuidedTeacher(teacher, guidance)
    schedule = Schedule.ddpm(steps)
    upper = Schedule.ddpm(steps, variance="upper")
    spread = 2.0 * torch.from_numpy(np.log(upper.sigma[:-1] / schedule.sigma[:-1]))
    weights: list[float] = []

    def recording(x: Tensor, t: Tensor, y: Tensor) -> TeacherOutput:
        out = guided(x, t, y)
        if out.variance is None:
            raise ValueError(
                "teacher must have a learned variance (learn_sigma) to be fitted, got one without"
            )
        if (k := len(weights)) < len(spread):
            log_variance = (out.variance.double() + 1.0) / 2.0 * spread[k].to(x.device)
            mean = log_variance.flatten().logsumexp(0) - math.log(log_variance.numel())
            weights.append(float(mean / spread[k]))
        return out

    y, seeds, x = check_request(teacher, labels, seed, shape)
    SequentialSampler(recording, schedule, graph=False).sample(y, seeds, x.shape[1:], progress)
    return VarianceFit(schedule.timesteps[:-1], np.array(weights))


def sigma_loss(
    network: torch.nn.Module,
    x0: Tensor,
    labels: Tensor,
    random: RowRandom,
    *,
    teacher: Any,
    schedule: Schedule,
    label_dropout: float = 0.1,
) -> dict[str, Tensor]:
    """The variational bound of a uniform transition, by its variance, in nats an element.

    The divergence of the teacher's transition from the posterior's, whose mean is the teacher's
    with the true noise (Ho et al. 2020, Eq. 5): with the frozen teacher's squared error
    ``err = b^2 |eps - eps_theta|^2 / D`` it is least at ``sigma^2 = beta~ + err``.

    ``network(x, t)`` is w [R], x0 is [R, ...], the labels are [R] int64. The schedule is DDPM's
    with the posterior's variance; the teacher does not get a share ``label_dropout`` of the labels.
    """
    table = Table.of(schedule, x0.device)
    upper = Table.of(Schedule.ddpm(len(schedule), variance="upper"), x0.device)
    k = random.integers(len(schedule) - 1)
    noise = random.normal(x0.shape[1:])
    x = noised(table, k, x0, noise)
    y = drop_labels(labels, teacher.null_label, label_dropout, random)
    with torch.no_grad():
        eps = teacher(x, table.timesteps[k], y).eps.float()
    posterior = table.sigma[k].square()
    error = table.of_prediction[k].square() * (eps - noise).square().flatten(1).mean(1)
    ratio = 2.0 * network(x, table.timesteps[k]).float() * (upper.sigma[k] / table.sigma[k]).log()
    bound = 0.5 * (ratio + (1.0 + error / posterior) * (-ratio).exp() - 1.0)
    return {"loss": bound.mean(), "posterior": (0.5 * error / posterior).mean()}
