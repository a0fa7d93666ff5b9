"""The laws of diffusers' ``DPMSolverMultistepScheduler``.

With ``lambda = log(signal / noise)``, ``h`` its rise in a transition and ``B`` the share of x0 in
the first order's mean, the second order adds ``D = (x0 - x0_previous) h / h_previous``, weighted
by ``B / 2`` (midpoint) or as Heun's rule has it. So a mean is made of the state, its image and the
image before.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from free.schedule.ddpm import clipping_of, prediction_of
from free.schedule.flow import checked_levels
from free.schedule.renewal import PREDICTIONS, Column, Columns, renewal, vector
from free.schedule.stochasticity import renewed


def dpm_solver(grid: Any, config: Mapping[str, Any], stochasticity: Any = None) -> Columns:
    """The law of ``DPMSolverMultistepScheduler.step`` with a stochastic ``algorithm_type``; with
    ``"dpmsolver++"`` the law of this ``stochasticity`` near it.

    Raises a ValueError for orders above 2, for learned variances, and for ``"sde-dpmsolver"`` of
    the second order, whose history is of the noise, not of x0.
    """
    kind, order = config["algorithm_type"], config["solver_order"]
    if order not in (1, 2):
        raise ValueError(
            "solver_order must be 1 or 2 (a law's mean may be of one image before its own), "
            f"got {order!r}"
        )
    if str(config["variance_type"]).startswith("learned"):
        raise ValueError(
            "variance_type must be None with a DPMSolverMultistepScheduler (a law's variance is "
            f"its own), got {config['variance_type']!r}"
        )
    if kind == "sde-dpmsolver" and order == 2:
        raise ValueError(
            "algorithm_type must be 'sde-dpmsolver++' with solver_order=2 (or solver_order be 1): "
            f"the history is one of x0, got {kind!r}"
        )
    flow = bool(config["use_flow_sigmas"])
    levels = checked_levels(vector(grid.sigmas), 1.0 if flow else np.inf)
    signal = 1.0 - levels if flow else 1.0 / np.sqrt(np.square(levels) + 1.0)
    noise = levels if flow else levels * signal
    before, after = signal[:-1], signal[1:]
    left, had = noise[1:], noise[:-1]
    # exp(-h), 0 where no noise is left
    shrinks = before * left / (had * after)
    if kind == "dpmsolver++":
        kept, sigma = renewed(stochasticity, before, had, after, left)
    elif kind == "sde-dpmsolver++":
        kept = left * shrinks
        sigma = left * np.sqrt(1.0 - np.square(shrinks))
    else:
        if (left == 0).any():
            raise ValueError("final_sigmas_type must be 'sigma_min' with algorithm_type "
                             f"{kind!r}, got {config['final_sigmas_type']!r}")  # fmt: skip
        # mean = after / before x - 2 left (e^h - 1) eps
        kept = after / before * had - 2.0 * left * (1.0 / shrinks - 1.0)
        sigma = left * np.sqrt(np.square(1.0 / shrinks) - 1.0)
    prediction = prediction_of(config, PREDICTIONS[: 3 if kind == "sde-dpmsolver" else 4])
    columns = renewal(
        vector(grid.timesteps),
        before,
        had,
        after=after,
        kept=kept,
        sigma=sigma,
        prediction=prediction,
        clipping=clipping_of(config),
    )
    if prediction == "flow_prediction":  # of x0 + sigma v, however states are scaled
        columns["image"] = np.stack([np.ones_like(had), -levels[:-1]])
    if order == 2 and len(kept) > 1:
        first = after - kept * before / had
        weight, ratio = _second_order(config, first, signal, noise)
        columns["b"] = columns["b"] + weight * ratio
        columns["c"] = -weight * ratio
    return columns


def _second_order(
    config: Mapping[str, Any], first: Column, signal: Column, noise: Column
) -> tuple[Column, Column]:
    """Weights of D and ``h / h_previous``, [N] each; 0 where the order is 1.

    ``first`` is the first order's share of x0.
    """
    N = len(first)
    with np.errstate(divide="ignore"):
        rise = np.diff(np.log(signal) - np.log(noise))
    second = np.arange(N) > 0
    last_is_first = (
        config["euler_at_final"]
        or (config["lower_order_final"] and N < 15)
        or config["final_sigmas_type"] == "zero"
    )
    second[-1] &= not last_is_first
    ratio = np.zeros(N)
    ratio[second] = rise[second] / rise[np.flatnonzero(second) - 1]
    weight = first / 2.0
    if config["solver_type"] == "heun":
        weight = np.zeros(N)
        if (rise[second] == 0).any():
            raise ValueError(
                "sigmas must fall from step to step with solver_type='heun', got two that are "
                f"equal, with final_sigmas_type={config['final_sigmas_type']!r}"
            )
        share = (first / signal[1:])[second]
        with np.errstate(divide="ignore"):  # nothing of the state is kept
            weight[second] = signal[1:][second] * (1.0 + share / np.log1p(-share))
    return np.where(second, weight, 0.0), ratio
