"""The laws of diffusers' DDIM, LCM and Euler ancestral schedulers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from free.arguments import as_number
from free.schedule.ddpm import clipping_of, levels, prediction_of
from free.schedule.renewal import Columns, renewal, vector


def ddim(
    grid: Any, config: Mapping[str, Any], eta: float, use_clipped_model_output: bool
) -> Columns:
    """The law of ``DDIMScheduler.step(eta=..., use_clipped_model_output=...)``.

    Its transitions go down by ``num_train_timesteps // steps``, whatever the timesteps are.
    Clipped, it is a law of x0 only if the noise is what the clipped image tells.
    """
    eta = as_number(eta, "eta must be finite and > 0 to be speculated", np.nextafter(0.0, 1.0))
    clipping = clipping_of(config)
    if clipping is not None and not use_clipped_model_output:
        raise ValueError(
            "use_clipped_model_output must be True where a DDIMScheduler clips x0 (clip_sample or "
            "thresholding), got False: its mean would be of two images, clipped and not. Pass "
            "use_clipped_model_output=True, or a scheduler with clip_sample=False"
        )
    times = vector(grid.timesteps).astype(np.int64)
    every = levels(grid, config)
    before = times - config["num_train_timesteps"] // len(times)
    final = 1.0 if config["set_alpha_to_one"] else every[0]
    abar, abar_prev = every[times], np.where(before >= 0, every[np.maximum(before, 0)], final)
    variance = (1.0 - abar_prev) / (1.0 - abar) * (1.0 - abar / abar_prev)
    if (np.square(eta) * variance > 1.0 - abar_prev).any():
        some = variance > 0
        limit = np.sqrt(((1.0 - abar_prev)[some] / variance[some]).min())
        raise ValueError(f"eta must be at most {limit:.4g} at {len(times)} steps, got {eta}")
    return renewal(
        times,
        np.sqrt(abar),
        np.sqrt(1.0 - abar),
        after=np.sqrt(abar_prev),
        kept=np.sqrt(1.0 - abar_prev - np.square(eta) * variance),
        sigma=eta * np.sqrt(variance),
        prediction=prediction_of(config),
        clipping=clipping,
    )


def lcm(grid: Any, config: Mapping[str, Any]) -> Columns:
    """The law of ``LCMScheduler.step``: the image that is found, renoised.

    That is a mixture of the state and of x0, as the boundary condition of consistency models has
    it: ``c_skip x + c_out x0``.
    """
    times = vector(grid.timesteps).astype(np.int64)
    every = levels(grid, config)
    # The last transition goes nowhere, without noise.
    after = every[np.append(times[1:], times[-1])]
    noisy = np.arange(len(times)) != grid.num_inference_steps - 1
    columns = renewal(
        times,
        np.sqrt(every[times]),
        np.sqrt(1.0 - every[times]),
        after=np.ones(len(times)),
        kept=np.zeros(len(times)),
        sigma=np.where(noisy, np.sqrt(1.0 - after), 0.0),
        prediction=prediction_of(config),
        clipping=clipping_of(config),
    )
    scaled = np.square(times * float(config["timestep_scaling"]))
    data = 0.5**2  # sigma_data, fixed there
    scale = np.where(noisy, np.sqrt(after), 1.0)
    columns["a"] = scale * data / (scaled + data)
    columns["b"] = scale * np.sqrt(scaled / (scaled + data))
    return columns


def euler_ancestral(grid: Any, config: Mapping[str, Any]) -> Columns:
    """The law of ``EulerAncestralDiscreteScheduler.step``, ``x = x0 + sigma eps``.

    The network is given the states at unit variance, and timesteps between whole ones.
    """
    levels = vector(grid.sigmas)
    sigma, after = levels[:-1], levels[1:]
    fresh = after * np.sqrt(np.square(sigma) - np.square(after)) / sigma
    columns = renewal(
        vector(grid.timesteps),
        np.ones_like(sigma),
        sigma,
        after=np.ones_like(sigma),
        kept=np.square(after) / sigma,
        sigma=fresh,
        prediction=prediction_of(config, ("epsilon", "v_prediction")),
    )
    scale = 1.0 / np.sqrt(np.square(sigma) + 1.0)
    return {**columns, "input_scale": scale, "start": float(grid.init_noise_sigma)}
