"""The samplers of diffusion policies, with the settings of Diffusion Policy and of LeRobot.

DDPM over a squared cosine of 100 levels, x0 clipped to the range of actions; and DDIM, which makes
do with fewer steps and cannot be speculated, having no noise.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

import free

#: ``denoise(x [R, ...], t [R], condition [R, ...])`` is the predicted noise.
Denoise = Callable[[Tensor, Tensor, Tensor], Tensor]


def scheduler_config(levels: int) -> dict[str, Any]:
    """The configuration of those packages' ``DDPMScheduler``, of so many training levels."""
    return {
        "_class_name": "DDPMScheduler",
        "num_train_timesteps": levels,
        "beta_schedule": "squaredcos_cap_v2",
        "clip_sample": True,
        "clip_sample_range": 1.0,
        "prediction_type": "epsilon",
        "variance_type": "fixed_small",
    }


@functools.cache
def schedule_of(levels: int, steps: int) -> free.Schedule:
    """DDPM in so many steps, for a network that was trained on so many ``levels``."""
    return free.Schedule.from_scheduler(scheduler_config(levels), steps)


def noise_levels(levels: int) -> tuple[Tensor, Tensor]:
    """What a clean chunk and the noise are multiplied by at each training level, each [levels]."""
    schedule = schedule_of(levels, levels)
    signal, noise = (
        column[::-1].astype(np.float32) for column in (schedule.signal, schedule.noise)
    )
    return torch.from_numpy(signal), torch.from_numpy(noise)


def ddim(
    denoise: Denoise,
    x: Tensor,
    conditions: Tensor,
    schedule: free.Schedule,
    random: torch.Generator,
) -> Tensor:
    """Deterministic DDIM from the noise ``x [B, ...]``, as diffusers' ``DDIMScheduler`` steps."""
    signal, noise = [*schedule.signal.tolist(), 1.0], [*schedule.noise.tolist(), 0.0]
    for k, t in enumerate(schedule.timesteps.tolist()):
        eps = denoise(x, torch.full((len(x),), t), conditions)
        clean = ((x - noise[k] * eps) / signal[k]).clamp(-1, 1)
        x = signal[k + 1] * clean + noise[k + 1] * eps
    return x


def ddpm(
    denoise: Denoise,
    x: Tensor,
    conditions: Tensor,
    schedule: free.Schedule,
    random: torch.Generator,
) -> Tensor:
    """The plain sampler by hand, as short as can be: what the package's is timed against."""
    levels = zip(*(column.tolist() for column in (schedule.signal, schedule.noise)), strict=True)
    moves = zip(*(c.tolist() for c in (schedule.a, schedule.b, schedule.sigma)), strict=True)
    for t, (signal, noise), (a, b, sigma) in zip(
        schedule.timesteps.tolist(), levels, moves, strict=True
    ):
        eps = denoise(x, torch.full((len(x),), t), conditions)
        clean = torch.sub(x, eps, alpha=noise).mul_(1 / signal).clamp_(-1, 1)
        x = clean.mul_(b).add_(x, alpha=a)
        x.add_(torch.randn(x.shape, generator=random), alpha=sigma)
    return x


#: Loops of one's own, by the name of their law.
BY_HAND = {"ddim": ddim, "ddpm by hand": ddpm}
