"""Scheduler configurations of diffusers, as schedules.

Only ancestral DDPM sampling of an eps-predicting network without clipping has Gaussian transitions
of one known variance, which is what can be speculated. Whatever else a configuration asks for is
refused, with the reason and the way out: a sampler with another law is never used in silence.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from free.arguments import as_integer
from free.schedule.schedule import LONGEST, Schedule

#: Parameters of diffusers' DDPMScheduler, with its defaults.
_DEFAULTS: dict[str, Any] = {
    "num_train_timesteps": 1000,
    "beta_start": 1e-4,
    "beta_end": 2e-2,
    "beta_schedule": "linear",
    "trained_betas": None,
    "variance_type": "fixed_small",
    "clip_sample": True,
    "prediction_type": "epsilon",
    "thresholding": False,
    "dynamic_thresholding_ratio": 0.995,
    "clip_sample_range": 1.0,
    "sample_max_value": 1.0,
    "timestep_spacing": "leading",
    "steps_offset": 0,
    "rescale_betas_zero_snr": False,
}
#: Those that belong to the network's training, whatever it is sampled with.
_TRAINING = (
    "num_train_timesteps",
    "beta_start",
    "beta_end",
    "beta_schedule",
    "trained_betas",
    "rescale_betas_zero_snr",
    "prediction_type",
)
_VARIANCES = {
    "fixed_small": "posterior",
    "fixed_small_log": "posterior",
    "fixed_large": "upper",
    "fixed_large_log": "upper",
}
_WAY_OUT = "pass scheduler='ddpm' for DDPM with this config's betas, as DiT samples"
_FLOW = (
    "of a network that predicts flow matching's velocity, pass scheduler=lambda steps: "
    "free.Schedule.sde('linear', steps)"
)
#: Why some settings cannot be speculated; first those that 'ddpm' leaves as they are.
_REFUSED = {
    "prediction_type": "the network must predict the noise (prediction_type='epsilon')",
    "rescale_betas_zero_snr": "where no signal is left, eps does not tell x0 "
    "(rescale_betas_zero_snr=False does)",
    "clip_sample": f"DiT does not clip x0: set clip_sample=False, or {_WAY_OUT}",
    "thresholding": f"it rescales x0 by its own quantiles: set thresholding=False, or {_WAY_OUT}",
    "variance_type": "draft and target need one variance a step, known before the network is "
    f"called: set variance_type='fixed_small', or {_WAY_OUT}",
}
#: The reasons that lie in the network's training: no other scheduler is a way out.
_OF_THE_NETWORK = ("prediction_type", "rescale_betas_zero_snr")


def ddpm_config(config: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """A configuration of diffusers' ``DDPMScheduler``, as DiT samples.

    Linspace spacing, the posterior's variance, no clipping. ``config`` is any diffusers
    scheduler's, whose betas and ``prediction_type`` are kept; None for the betas of DiT, linear
    from 1e-4 to 0.02 over 1000 steps. Raises ValueError if it has no betas (a flow-matching
    scheduler's).
    """
    if config is not None and not _has_betas(config):
        raise ValueError(
            "scheduler='ddpm' needs a config with betas (beta_schedule or trained_betas), "
            f"got {config.get('_class_name', 'one')} with {sorted(config)}: {_FLOW}"
        )
    training = {key: config[key] for key in _TRAINING if config and key in config}
    sampling = {
        "variance_type": "fixed_small",
        "clip_sample": False,
        "thresholding": False,
        "timestep_spacing": "linspace",
        "steps_offset": 0,
    }
    return {"_class_name": "DDPMScheduler", **training, **sampling}


def schedule_from_config(config: Mapping[str, Any], steps: int) -> Schedule:
    """The sampler that a diffusers ``DDPMScheduler`` of this configuration is.

    Mean and variance of every step are those of ``DDPMScheduler.step``, in float64. Where its grid
    does not end at timestep 0 and its variance is ``fixed_large``, diffusers adds noise in the last
    step too, and so does the schedule. ``fixed_large_log`` is ``fixed_large``; diffusers takes the
    root of its logarithm there and returns NaN.

    Parameters
    ----------
    config : mapping
        As in ``scheduler_config.json``; what is left out has diffusers' default (which for
        ``clip_sample`` is True, and refused). Keys that begin with ``_`` are notes, except
        ``_class_name``.
    steps : int
        ``num_inference_steps``, 1 .. ``num_train_timesteps``.

    Raises
    ------
    ValueError
        If the configuration's law cannot be sampled, or is not known; says why, and the way out.
    """
    name = config.get("_class_name", "DDPMScheduler")
    if name != "DDPMScheduler":
        if _has_betas(config):
            _check_law({**_DEFAULTS, **config}, _OF_THE_NETWORK)
        raise ValueError(
            "scheduler must be a DDPMScheduler, the only one of diffusers that is read here (each "
            "of its steps draws from one Gaussian of a variance known beforehand), "
            f"got {name}: {_WAY_OUT if _has_betas(config) else _FLOW}"
        )
    unknown = sorted(key for key in config if key not in _DEFAULTS and not key.startswith("_"))
    if unknown:
        raise ValueError(
            f"scheduler config must have keys of DDPMScheduler, got {', '.join(unknown)}, "
            f"which may change the law: leave them out, or {_WAY_OUT}"
        )
    c = {**_DEFAULTS, **config}
    _check_law(c, _REFUSED)
    expected = f"num_train_timesteps must be an integer in 1..{LONGEST}"
    last = as_integer(c["num_train_timesteps"], expected, 1, LONGEST)
    expected = f"steps (num_inference_steps) must be an integer in 1..{last}"
    steps = as_integer(steps, expected, 1, last)
    timesteps = _timesteps(c, steps)
    betas = _betas(c)
    variance = _VARIANCES[c["variance_type"]]
    schedule = Schedule.from_betas(betas, timesteps, variance)
    if variance == "upper" and timesteps[-1] > 0:
        sigma = schedule.sigma.copy()
        sigma[-1] = math.sqrt(1.0 - np.prod(1.0 - betas[: timesteps[-1] + 1]))
        schedule = dataclasses.replace(schedule, sigma=sigma)
    return schedule


def _has_betas(config: Mapping[str, Any]) -> bool:
    return not {"beta_schedule", "trained_betas"}.isdisjoint(config)


def _check_law(c: Mapping[str, Any], keys: Iterable[str]) -> None:
    """Refuse what makes a transition non-Gaussian, or its variance unknown beforehand."""
    allowed = {
        "clip_sample": not c["clip_sample"],
        "thresholding": not c["thresholding"],
        "variance_type": c["variance_type"] in _VARIANCES,
        "prediction_type": c["prediction_type"] == "epsilon",
        "rescale_betas_zero_snr": not c["rescale_betas_zero_snr"],
    }
    key = next((key for key in keys if not allowed[key]), None)
    if key is not None:
        raise ValueError(
            f"scheduler config has {key}={c[key]!r}, which cannot be speculated: {_REFUSED[key]}"
        )


def _betas(c: Mapping[str, Any]) -> NDArray[np.float64]:
    """Betas of the training steps, [T]."""
    count, start, end = c["num_train_timesteps"], c["beta_start"], c["beta_end"]
    kind = c["beta_schedule"]
    if c["trained_betas"] is not None:
        betas = np.asarray(c["trained_betas"], dtype=np.float64)
        if betas.shape != (count,):
            raise ValueError(
                f"trained_betas must have num_train_timesteps ({count}) entries, "
                f"got shape {betas.shape}"
            )
        return betas
    if kind == "linear":
        return np.linspace(start, end, count)
    if kind == "scaled_linear":
        return np.linspace(start**0.5, end**0.5, count) ** 2
    if kind == "squaredcos_cap_v2":  # Nichol and Dhariwal (2021), Eq. 17
        signal = np.cos((np.arange(count + 1) / count + 0.008) / 1.008 * np.pi / 2) ** 2
        return np.minimum(1.0 - signal[1:] / signal[:-1], 0.999)
    if kind == "sigmoid":
        return start + (end - start) / (1.0 + np.exp(-np.linspace(-6.0, 6.0, count)))
    raise ValueError(
        "beta_schedule must be 'linear', 'scaled_linear', 'squaredcos_cap_v2' or 'sigmoid' "
        f"(or trained_betas be given), got {kind!r}"
    )


def _timesteps(c: Mapping[str, Any], steps: int) -> NDArray[np.int64]:
    """Training steps at which the network is called, falling, [steps]."""
    count, spacing = c["num_train_timesteps"], c["timestep_spacing"]
    if spacing == "linspace":
        grid = np.linspace(0, count - 1, steps).round()[::-1]
    elif spacing == "leading":
        grid = np.arange(steps)[::-1] * float(count // steps) + c["steps_offset"]
    elif spacing == "trailing":
        grid = np.round(np.arange(count, 0, -count / steps)) - 1
        if len(grid) != steps or grid[-1] < 0:
            raise ValueError(
                "steps (num_inference_steps) must be another number with "
                f"timestep_spacing='trailing', which makes {len(grid)} of {steps}, the last at "
                f"{grid[-1]:g}"
            )
    else:
        raise ValueError(
            f"timestep_spacing must be 'linspace', 'leading' or 'trailing', got {spacing!r}"
        )
    if grid[0] >= count:
        raise ValueError(
            f"steps_offset must leave the timesteps below num_train_timesteps ({count}), "
            f"got {c['steps_offset']} with {steps} steps"
        )
    return grid.astype(np.int64)
