"""The samplers of diffusion policies, with the settings of Diffusion Policy and of LeRobot.

DDPM over a squared cosine of 100 levels, x0 clipped to the range of actions; and DDIM, which makes
do with fewer steps and cannot be speculated, having no noise.
"""

from __future__ import annotations

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


def ddim(denoise: Denoise, x: Tensor, conditions: Tensor, levels: int, steps: int) -> Tensor:
    """Deterministic DDIM from the noise ``x [B, ...]``, as diffusers' ``DDIMScheduler`` steps."""
    schedule = schedule_of(levels, steps)
    signal, noise = [*schedule.signal.tolist(), 1.0], [*schedule.noise.tolist(), 0.0]
    for k, t in enumerate(schedule.timesteps.tolist()):
        eps = denoise(x, torch.full((len(x),), t), conditions)
        clean = ((x - noise[k] * eps) / signal[k]).clamp(-1, 1)
        x = signal[k + 1] * clean + noise[k + 1] * eps
    return x
