"""Stochastic samplers of flow matching: ``x = (1 - t) x0 + t n``, the network predicts ``n - x0``.

All are laws of the image ``x0 = x - t v``. ``levels [N + 1]`` are the times t of the states, which
fall from at most 1 to at least 0.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from free.arguments import as_integer, as_number, shortened
from free.schedule.renewal import Column, Columns, renewal, vector
from free.schedule.stochasticity import amounts, renewed

#: What may be asked for by name, and how much noise each has by default: Flow-GRPO's SDE (Liu et
#: al. 2025), coefficients-preserving sampling (Wang and Yu 2025) and DanceGRPO's SDE (Xue et al.
#: 2025).
KINDS: dict[str, float | None] = {"renoise": None, "flow-sde": 0.7, "cps": 0.7, "dance": 0.3}


def flow(kind: str, levels: Column, stochasticity: Any, timesteps: Column) -> Columns:
    """The law of one of :data:`KINDS`.

    Parameters
    ----------
    kind : str
    levels : ndarray of float64, shape [N + 1]
    stochasticity : float, array_like of float, shape [N], or None
        How much noise, >= 0, also called eta; None for the kind's default. Of ``"renoise"``, which
        renews all of it, only None.
    timesteps : ndarray of float64, shape [N]

    Raises
    ------
    ValueError
        If the kind is none of these, the stochasticity or a level is out of range.
    """
    if kind not in KINDS:
        raise ValueError(f"kind must be one of {', '.join(map(repr, KINDS))}, got {kind!r}")
    levels = checked_levels(levels)
    t, after = levels[:-1], levels[1:]
    gone = t - after
    if kind == "renoise":
        if stochasticity is not None:
            raise ValueError(
                "stochasticity must be None with 'renoise', which renews all noise, "
                f"got {shortened(stochasticity)}"
            )
        return _renewal(timesteps, t, after, kept=np.zeros_like(t), sigma=after)
    most = 1.0 if kind == "cps" else np.inf
    expected = f"stochasticity must be finite and >= 0, at most {most:g}, with {kind!r}"
    own = KINDS[kind] if stochasticity is None else stochasticity
    eta = amounts(own, len(t), expected, most=most)
    if kind == "cps":
        sigma = after * np.sin(eta * np.pi / 2.0)
        kept = np.sqrt(np.square(after) - np.square(sigma))
        return _renewal(timesteps, t, after, kept=kept, sigma=sigma)
    if kind == "flow-sde":
        # mean = x (1 - g^2 gone / 2 t) - v gone (1 + g^2 (1 - t) / 2 t), where g is unbounded at 1
        bounded = np.where(t == 1.0, levels[1], t)
        if (bounded == 1.0).any():
            raise ValueError("sigmas must be 1 in the first state alone with 'flow-sde', got two")
        square = np.square(eta) * t / (1.0 - bounded)
        sigma = np.sqrt(square * gone)
        of_state = 1.0 - square * gone / (2.0 * t)
        of_velocity = -gone * (1.0 + square * (1.0 - t) / (2.0 * t))
    else:
        # mean = x - v gone + eta^2 gone score / 2, with score = -(x - (1 - t) x0) / t^2
        sigma = eta * np.sqrt(gone)
        drift = np.square(eta) * gone / (2.0 * np.square(t))
        of_state, of_velocity = 1.0 - drift * t, -gone - drift * (1.0 - t) * t
        # The image that is kept is the one that the last prediction tells.
        of_state[-1], of_velocity[-1], sigma[-1] = 1.0, -t[-1], 0.0
    return of_velocities(timesteps, t, of_state, of_velocity, sigma)


def repa(steps: int, last: float, guided: tuple[float, float]) -> Columns:
    """See :meth:`free.Schedule.repa`."""
    steps = as_integer(steps, "steps must be an integer >= 2", 2, 1_000_000)
    expected = "last must be in (0, 1)"
    last = as_number(last, expected, np.nextafter(0.0, 1.0), np.nextafter(1.0, 0.0))
    t = np.linspace(1.0, last, steps)
    gone = t - np.append(t[1:], 0.0)
    sigma = np.append(np.sqrt(2.0 * t * gone)[:-1], 0.0)
    columns = of_velocities(t, t, 1.0 - gone, -gone * (2.0 - t), sigma)
    expected = "guided must be two numbers low <= high"
    if not isinstance(guided, tuple | list) or len(guided) != 2:
        raise ValueError(f"{expected}, got {guided!r}")
    low, high = (as_number(end, expected) for end in guided)
    if low > high:
        raise ValueError(f"{expected}, got {guided}")
    inside = (low <= t) & (t <= high)
    return {**columns, "guided": None if inside.all() else inside.astype(np.float64)}


def levels_of_steps(steps: int | None, sigmas: ArrayLike | None, shift: float) -> Column:
    """Levels [N + 1] of so many steps, or those given [N], shifted; the last is 0."""
    shift = as_number(shift, "shift must be a finite number > 0", np.nextafter(0.0, 1.0))
    if (steps is None) == (sigmas is None):
        raise ValueError(f"steps or sigmas must be given, one of them, got {steps} and {sigmas!r}")
    if sigmas is None:
        count = as_integer(steps, "steps must be an integer >= 1", 1, 1_000_000)
        given = np.linspace(1.0, 1.0 / count, count)
    else:
        given = np.asarray(sigmas, dtype=np.float64)
        if given.ndim != 1 or not given.size:
            raise ValueError(f"sigmas must be a non-empty vector, got shape {given.shape}")
    with np.errstate(invalid="ignore"):  # refused where it is used
        return np.append(shift * given / (1.0 + (shift - 1.0) * given), 0.0)


def checked_levels(levels: ArrayLike, most: float = 1.0) -> Column:
    """Noise levels [N + 1]; a ValueError if they rise, or are not in ``0 .. most``, the last but
    one above 0.
    """
    levels = np.asarray(levels, dtype=np.float64)
    if not np.isfinite(levels).all():
        raise ValueError(f"sigmas must be finite, got {levels[~np.isfinite(levels)][0]}")
    if (rises := np.diff(levels) > 0).any():
        k = int(rises.argmax())
        raise ValueError(
            f"sigmas must not rise from step to step, got {levels[k]:g} and then "
            f"{levels[k + 1]:g} at step {k + 1}"
        )
    if levels[-1] < 0 or levels[0] > most:
        raise ValueError(f"sigmas must be in 0..{most:g}, got {levels[0]:g}..{levels[-1]:g}")
    if levels[-2] == 0:
        raise ValueError("sigmas must be > 0 before the last, got 0, where no noise is left")
    return levels


def renoise(grid: Any, config: Mapping[str, Any]) -> Columns:
    """The law of ``FlowMatchEulerDiscreteScheduler(stochastic_sampling=True).step``, and of
    ``FlowMatchLCMScheduler.step``.
    """
    _require_unscaled(config)
    return flow("renoise", vector(grid.sigmas), None, vector(grid.timesteps))


def euler(grid: Any, config: Mapping[str, Any], stochasticity: Any) -> Columns:
    """The law near the deterministic ``FlowMatchEulerDiscreteScheduler.step``."""
    _require_unscaled(config)
    levels = checked_levels(vector(grid.sigmas))
    t, after = levels[:-1], levels[1:]
    kept, sigma = renewed(stochasticity, 1.0 - t, t, 1.0 - after, after)
    return _renewal(vector(grid.timesteps)[: len(t)], t, after, kept=kept, sigma=sigma)


def _require_unscaled(config: Mapping[str, Any]) -> None:
    if config.get("scale_factors"):
        raise ValueError(
            "scale_factors must be None, as a state keeps its size in a schedule, "
            f"got {config['scale_factors']}"
        )


def ltx(grid: Any, config: Mapping[str, Any]) -> Columns:
    """The law of ``LTXEulerAncestralRFScheduler.step``: Euler to a lower level, and back."""
    levels = checked_levels(vector(grid.sigmas))
    t, after = levels[:-1], levels[1:]
    eta = as_number(config["eta"], "eta must be finite and > 0 to be speculated", 0.0)
    amount = as_number(config["s_noise"], "s_noise must be finite and > 0 to be speculated", 0.0)
    if eta == 0 or amount == 0:
        raise ValueError(
            "eta and s_noise must be > 0 in an LTXEulerAncestralRFScheduler to be speculated, "
            f"got {eta} and {amount}"
        )
    down = after * (1.0 + (after / t - 1.0) * eta)
    kept = down * (1.0 - after) / (1.0 - down)
    fresh = np.sqrt(np.clip(np.square(after) - np.square(kept), 0.0, None))
    return _renewal(vector(grid.timesteps)[: len(t)], t, after, kept=kept, sigma=amount * fresh)


def of_velocities(
    timesteps: Column, t: Column, of_state: Column, of_velocity: Column, sigma: Column
) -> Columns:
    """The law with ``mean = of_state x + of_velocity v``, as one of the image."""
    columns = _renewal(timesteps, t, 1.0 - t, kept=np.zeros_like(t), sigma=sigma)
    return {**columns, "a": of_state + of_velocity / t, "b": -of_velocity / t}


def _renewal(
    timesteps: Column, t: Column, after: Column, *, kept: Column, sigma: Column
) -> Columns:
    return renewal(
        timesteps,
        1.0 - t,
        t,
        after=1.0 - after,
        kept=kept,
        sigma=sigma,
        prediction="flow_prediction",
    )
