"""Transitions that keep a part of the noise that is seen and renew the rest.

A state ``x = s x0 + n eps`` and a prediction tell an image x0, and with it the noise eps. Nearly
all stochastic samplers go on to

    mean = s' x0 + kept eps = kept / n x + (s' - kept s / n) x0

and add fresh noise. They differ in how much they keep: DDIM and DDPM by their eta, ancestral
samplers what an Euler step to a lower level leaves, samplers that renoise none at all.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from free.schedule.clipping import Clipping

Column = NDArray[np.float64]
#: Fields of a :class:`free.Schedule` by their names.
Columns = dict[str, Any]

#: What networks predict, in the words of diffusers.
PREDICTIONS = ("epsilon", "v_prediction", "sample", "flow_prediction")


def vector(values: Any) -> Column:
    """Float64 of anything that is a vector, also of a tensor on another device."""
    if isinstance(values, torch.Tensor):
        values = values.detach().cpu().double().numpy()
    return np.asarray(values, dtype=np.float64)


def renewal(
    timesteps: NDArray[Any],
    signal: Column,
    noise: Column,
    *,
    after: Column,
    kept: Column,
    sigma: Column,
    prediction: str,
    clipping: Clipping | None = None,
) -> Columns:
    """The law that keeps ``kept`` of the noise, and the image ``after`` its transition.

    Parameters
    ----------
    timesteps : ndarray, shape [N]
    signal, noise : ndarray of float64, shape [N]
        Of the states, ``x = signal x0 + noise eps``; ``noise > 0``.
    after : ndarray of float64, shape [N]
        Signal of the next states.
    kept : ndarray of float64, shape [N]
        Share of eps in the mean, >= 0.
    sigma : ndarray of float64, shape [N]
        Standard deviation of the fresh noise.
    prediction, clipping
        See :func:`image_of`, and :class:`free.Schedule`.
    """
    a = kept / noise
    return {
        "timesteps": timesteps,
        "a": a,
        "b": after - a * signal,
        "sigma": sigma,
        "signal": signal,
        "noise": noise,
        "image": image_of(prediction, signal, noise),
        "clipping": clipping,
    }


def image_of(prediction: str, signal: Column, noise: Column) -> NDArray[np.float64]:
    """``p`` and ``q`` of the image that a prediction tells, ``x0 = p x + q y``, [2, N].

    Parameters
    ----------
    prediction : {"epsilon", "v_prediction", "sample", "flow_prediction"}
        The noise; the velocity of a variance-preserving process (Salimans and Ho 2022), also where
        states are scaled differently; x0 itself; or flow matching's velocity, ``eps - x0``.
    signal, noise : ndarray of float64, shape [N]

    Raises
    ------
    ValueError
        If it is none of these, or the noise is predicted of a state without signal.
    """
    none, every = np.zeros_like(signal), np.ones_like(signal)
    if prediction == "epsilon":
        if (signal == 0).any():
            raise ValueError(
                "prediction must not be 'epsilon' where no signal is left (as with "
                f"rescale_betas_zero_snr), got it at step {int((signal == 0).argmax())}: there "
                "the noise does not tell x0"
            )
        return np.stack([1.0 / signal, -noise / signal])
    if prediction == "v_prediction":
        square = np.square(signal) + np.square(noise)
        return np.stack([signal / square, -noise / np.sqrt(square)])
    if prediction == "sample":
        return np.stack([none, every])
    if prediction == "flow_prediction":
        return np.stack([every, -noise])
    raise ValueError(
        f"prediction (prediction_type) must be one of {', '.join(map(repr, PREDICTIONS))}, "
        f"got {prediction!r}"
    )
