"""The laws of diffusers' DDIM, LCM and Euler schedulers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from free.schedule.ddpm import clipping_of, levels, prediction_of
from free.schedule.flow import checked_levels
from free.schedule.renewal import Column, Columns, renewal, vector
from free.schedule.stochasticity import amounts, renewed


def ddim(
    grid: Any,
    config: Mapping[str, Any],
    eta: Any,
    use_clipped_model_output: bool,
    stochasticity: Any = None,
) -> Columns:
    """The law of ``DDIMScheduler.step(eta=..., use_clipped_model_output=...)``.

    Its transitions go down by ``num_train_timesteps // steps``, whatever the timesteps are.
    Clipped, it is a law of x0 only if the noise is what the clipped image tells. A
    ``stochasticity`` says how much noise there is instead of ``eta``.
    """
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
    signal, noise, after = np.sqrt(abar), np.sqrt(1.0 - abar), np.sqrt(abar_prev)
    if stochasticity is None:
        eta = amounts(eta, len(times), "eta must be finite and >= 0")
        kept, sigma = _of_eta(eta, abar, abar_prev)
    else:
        kept, sigma = renewed(stochasticity, signal, noise, after, np.sqrt(1.0 - abar_prev))
    return renewal(
        times,
        signal,
        noise,
        after=after,
        kept=kept,
        sigma=sigma,
        prediction=prediction_of(config),
        clipping=clipping,
    )


def _of_eta(eta: Column, abar: Column, abar_prev: Column) -> tuple[Column, Column]:
    """What DDIM keeps of the noise, and its fresh noise, from the squared signals [N]."""
    variance = (1.0 - abar_prev) / (1.0 - abar) * (1.0 - abar / abar_prev)
    with np.errstate(over="ignore", invalid="ignore"):  # refused below
        fresh = np.square(eta) * variance
    if (much := fresh > 1.0 - abar_prev).any():
        k, some = int(much.argmax()), variance > 0
        limit = np.sqrt(((1.0 - abar_prev)[some] / variance[some]).min())
        raise ValueError(f"eta must be at most {limit:.4g} at {len(eta)} steps, got {eta[k]}")
    return np.sqrt(1.0 - abar_prev - fresh), np.sqrt(fresh)


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
    sigma, after = vector(grid.sigmas)[:-1], vector(grid.sigmas)[1:]
    fresh = after * np.sqrt(np.square(sigma) - np.square(after)) / sigma
    return _of_sigmas(grid, config, sigma, kept=np.square(after) / sigma, fresh=fresh)


def euler(grid: Any, config: Mapping[str, Any], stochasticity: Any) -> Columns:
    """The law near ``EulerDiscreteScheduler.step``, whose states are ``x0 + sigma eps``, too."""
    levels = checked_levels(vector(grid.sigmas), np.inf)
    sigma, after = levels[:-1], levels[1:]
    every = np.ones_like(sigma)
    kept, fresh = renewed(stochasticity, every, sigma, every, after)
    return _of_sigmas(grid, config, sigma, kept=kept, fresh=fresh)


def _of_sigmas(
    grid: Any, config: Mapping[str, Any], sigma: Column, *, kept: Column, fresh: Column
) -> Columns:
    """The law of states ``x0 + sigma eps``, of which networks see those of unit variance."""
    columns = renewal(
        vector(grid.timesteps),
        np.ones_like(sigma),
        sigma,
        after=np.ones_like(sigma),
        kept=kept,
        sigma=fresh,
        prediction=prediction_of(config, ("epsilon", "v_prediction")),
    )
    scale = 1.0 / np.sqrt(np.square(sigma) + 1.0)
    return {**columns, "input_scale": scale, "start": float(grid.init_noise_sigma)}
