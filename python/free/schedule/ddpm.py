"""DDPM's tables: of betas, or of what a configuration of diffusers' ``DDPMScheduler`` says.

Configurations are read without diffusers, in float64.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from types import SimpleNamespace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from free.arguments import as_integer, as_number, shortened
from free.schedule.clipping import Clipping
from free.schedule.renewal import Columns, image_of, renewal, vector
from free.schedule.stochasticity import amounts
from free.schedule.variance import Variance, VarianceFit, fixed_variance

#: Training steps, at most: tables of more would fill the memory.
LONGEST = 1_000_000

#: Parameters of diffusers' DDPMScheduler, with its defaults.
DEFAULTS: dict[str, Any] = {
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
#: Of its ``variance_type``, those that are known before the network is called.
VARIANCES = {
    "fixed_small": "posterior",
    "fixed_small_log": "posterior",
    "fixed_large": "upper",
    "fixed_large_log": "upper",
}


def of_betas(
    betas: ArrayLike,
    timesteps: ArrayLike,
    variance: Variance | Callable[..., Any],
    stochasticity: Any,
    prediction: str,
    clipping: Clipping | None,
) -> Columns:
    """See :meth:`free.Schedule.from_betas`."""
    betas, times = np.asarray(betas, dtype=np.float64), np.asarray(timesteps)
    if betas.ndim != 1 or not betas.size:
        raise ValueError(f"betas must be a non-empty vector, got shape {betas.shape}")
    if (wrong := betas[~((betas > 0) & (betas < 1))]).size:
        raise ValueError(f"betas must be in (0, 1), got {wrong[0]}")
    if (
        times.ndim != 1
        or not times.size
        or (times != np.round(times)).any()
        or (np.diff(times) >= 0).any()
        or not 0 <= times[-1] <= times[0] < betas.size
    ):
        raise ValueError(f"timesteps must be falling integers in 0..{betas.size - 1}, got {times}")
    times = times.astype(np.int64)
    return of_levels(
        times,
        _levels(betas)[times],
        variance,
        stochasticity,
        prediction,
        clipping,
    )


def of_levels(
    times: NDArray[np.int64],
    abar: NDArray[np.float64],
    variance: Variance | Callable[..., Any] = "posterior",
    stochasticity: Any = 1.0,
    prediction: str = "epsilon",
    clipping: Clipping | None = None,
) -> Columns:
    """DDPM from the squared signals ``abar [N]`` of its states; see
    :meth:`free.Schedule.from_betas`.
    """
    amount = amounts(stochasticity, times.size)
    if (amount != 1.0).any() and not (isinstance(variance, str) and variance == "posterior"):
        raise ValueError(
            "stochasticity must be 1 unless variance is 'posterior', "
            f"got {shortened(stochasticity)} with variance {variance!r}"
        )
    abar_prev = np.append(abar[1:], 1.0)
    beta = 1.0 - abar / abar_prev
    posterior = beta * (1.0 - abar_prev) / (1.0 - abar)
    with np.errstate(over="ignore", invalid="ignore"):  # refused below
        eta_variance = np.square(amount) * posterior
    if (much := eta_variance > 1.0 - abar_prev).any():
        limit = np.sqrt(((1.0 - abar_prev)[:-1] / posterior[:-1]).min())
        raise ValueError(
            f"stochasticity must be at most {limit:.4g} at {times.size} steps, "
            f"got {amount[much.argmax()]}"
        )
    kept = np.sqrt(1.0 - abar_prev - eta_variance)  # DDIM's mean, which is DDPM's at eta = 1
    signal, noise = np.sqrt(abar), np.sqrt(1.0 - abar)
    least, upper, mixture = np.append(np.sqrt(posterior[:-1]), 0.0), None, None
    if callable(variance) and not isinstance(variance, VarianceFit):
        sigma, upper, mixture = least, np.append(np.sqrt(beta[:-1]), 0.0), variance
    else:
        if (amount == 1.0).all():
            eta_variance = fixed_variance(variance, posterior, beta, times)
        sigma = np.append(np.sqrt(eta_variance[:-1]), 0.0)
    columns = {"upper": upper, "mixture": mixture}
    if prediction != "epsilon" or clipping is not None:
        return columns | renewal(
            times,
            signal,
            noise,
            after=np.sqrt(abar_prev),
            kept=kept,
            sigma=sigma,
            prediction=prediction,
            clipping=clipping,
        )
    image_of(prediction, signal, noise)  # there must be a signal
    a = np.sqrt(abar_prev / abar)
    b = kept - a * noise
    return columns | {
        "timesteps": times, "a": a, "b": b, "sigma": sigma, "signal": signal, "noise": noise
    }  # fmt: skip


def ddpm(grid: Any, config: Mapping[str, Any]) -> Columns:
    """The law of ``DDPMScheduler.step``.

    Where the grid does not end at timestep 0 and the variance is ``fixed_large``, diffusers adds
    noise in the last step too, and so does the schedule. ``fixed_large_log`` is ``fixed_large``;
    diffusers takes the root of its logarithm there and returns NaN.

    Parameters
    ----------
    grid : object
        With ``timesteps`` and ``alphas_cumprod``, of diffusers or of :func:`own_grid`.
    config : mapping
        Of the scheduler, complete.
    """
    variance = VARIANCES.get(config["variance_type"])
    if variance is None:
        raise ValueError(
            f"scheduler config has variance_type={config['variance_type']!r}, which cannot be "
            "speculated: draft and target need one variance a step, known before the network is "
            f"called: set variance_type to one of {', '.join(map(repr, VARIANCES))}"
        )
    times = vector(grid.timesteps).astype(np.int64)
    abar = levels(grid, config)[times]
    prediction = prediction_of(config)
    columns = of_levels(times, abar, variance, prediction=prediction, clipping=clipping_of(config))
    if variance == "upper" and times[-1] > 0:
        columns["sigma"][-1] = math.sqrt(1.0 - abar[-1])
    return columns


def prediction_of(
    config: Mapping[str, Any], allowed: tuple[str, ...] = ("epsilon", "v_prediction", "sample")
) -> str:
    """A configuration's ``prediction_type``; a ValueError if it is none of those allowed."""
    prediction = config["prediction_type"]
    if prediction not in allowed:
        raise ValueError(
            f"prediction_type must be one of {', '.join(map(repr, allowed))} with this scheduler, "
            f"got {prediction!r}"
        )
    return str(prediction)


def clipping_of(config: Mapping[str, Any]) -> Clipping | None:
    """How a configuration limits x0; a ValueError if its numbers are out of range."""
    if config.get("thresholding"):
        largest = config["sample_max_value"]
        as_number(largest, "sample_max_value must be a finite number >= 1 with thresholding", 1.0)
        ratio = config["dynamic_thresholding_ratio"]
        as_number(ratio, "dynamic_thresholding_ratio must be in (0, 1]", math.ulp(0.0), 1.0)
        return Clipping(float(largest), float(ratio))
    if config.get("clip_sample"):
        largest = config["clip_sample_range"]
        as_number(largest, "clip_sample_range must be a finite number > 0", math.ulp(0.0))
        return Clipping(float(largest))
    return None


def levels(grid: Any, config: Mapping[str, Any]) -> NDArray[np.float64]:
    """Squared signals of the training steps, float64 [T].

    The scheduler's own are float32; where the configuration says the same, they are computed in
    float64 from it.
    """
    told = vector(grid.alphas_cumprod)
    if config.get("rescale_betas_zero_snr") or config["beta_schedule"] not in _BETAS:
        return told
    own = _levels(betas_of(config))
    if own.shape != told.shape:
        return told
    same = np.allclose(own, told, rtol=1e-4, atol=0.0)
    return own if same and np.allclose(1.0 - own, 1.0 - told, rtol=1e-4, atol=1e-6) else told


def _levels(betas: NDArray[np.float64]) -> NDArray[np.float64]:
    """Squared signals, [T], of betas [T]."""
    return np.asarray(np.cumprod(1.0 - betas), dtype=np.float64)


def own_grid(config: Mapping[str, Any], steps: int) -> SimpleNamespace:
    """What ``set_timesteps(steps)`` makes of a DDPMScheduler, without diffusers."""
    expected = f"num_train_timesteps must be an integer in 1..{LONGEST}"
    last = as_integer(config["num_train_timesteps"], expected, 1, LONGEST)
    expected = f"steps (num_inference_steps) must be an integer in 1..{last}"
    steps = as_integer(steps, expected, 1, last)
    abar = _levels(betas_of(config))
    if config["rescale_betas_zero_snr"]:  # Lin et al. (2024), Algorithm 1
        root = np.sqrt(abar)
        abar = np.square((root - root[-1]) * root[0] / (root[0] - root[-1]))
    return SimpleNamespace(alphas_cumprod=abar, timesteps=_timesteps(config, steps))


_BETAS = ("linear", "scaled_linear", "squaredcos_cap_v2", "sigmoid")


def betas_of(config: Mapping[str, Any]) -> NDArray[np.float64]:
    """Betas of the training steps, [T]."""
    count, start, end = config["num_train_timesteps"], config["beta_start"], config["beta_end"]
    kind = config["beta_schedule"]
    if config["trained_betas"] is not None:
        betas = np.asarray(config["trained_betas"], dtype=np.float64)
        if betas.shape != (count,):
            raise ValueError(
                f"trained_betas must have num_train_timesteps ({count}) entries, "
                f"got shape {betas.shape}"
            )
    elif kind == "linear":
        betas = np.linspace(start, end, count)
    elif kind == "scaled_linear":
        betas = np.linspace(start**0.5, end**0.5, count) ** 2
    elif kind == "squaredcos_cap_v2":  # Nichol and Dhariwal (2021), Eq. 17
        signal = np.cos((np.arange(count + 1) / count + 0.008) / 1.008 * np.pi / 2) ** 2
        betas = np.minimum(1.0 - signal[1:] / signal[:-1], 0.999)
    elif kind == "sigmoid":
        betas = start + (end - start) / (1.0 + np.exp(-np.linspace(-6.0, 6.0, count)))
    else:
        raise ValueError(
            f"beta_schedule must be {', '.join(map(repr, _BETAS[:-1]))} or {_BETAS[-1]!r} "
            f"(or trained_betas be given), got {kind!r}"
        )
    if (wrong := betas[~((betas > 0) & (betas < 1))]).size:
        raise ValueError(f"betas must be in (0, 1), got {wrong[0]}")
    return betas


def _timesteps(config: Mapping[str, Any], steps: int) -> NDArray[np.int64]:
    """Training steps at which the network is called, falling, [steps]."""
    count, spacing = config["num_train_timesteps"], config["timestep_spacing"]
    if spacing == "linspace":
        grid = np.linspace(0, count - 1, steps).round()[::-1]
    elif spacing == "leading":
        grid = np.arange(steps)[::-1] * float(count // steps) + config["steps_offset"]
    elif spacing == "trailing":
        grid = np.round(np.arange(count, 0, -count / steps)) - 1
    else:
        raise ValueError(
            f"timestep_spacing must be 'linspace', 'leading' or 'trailing', got {spacing!r}"
        )
    return grid.astype(np.int64)


def complete_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """A DDPMScheduler's configuration with diffusers' defaults; ``_`` begins notes."""
    unknown = sorted(key for key in config if key not in DEFAULTS and not key.startswith("_"))
    if unknown:
        raise ValueError(
            f"scheduler config must have keys of DDPMScheduler, got {', '.join(unknown)}, "
            "which may change the law: leave them out, or pass scheduler='ddpm' for DDPM with this "
            "config's betas, as DiT samples"
        )
    return {**DEFAULTS, **config}
