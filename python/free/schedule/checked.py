"""What the fields of a schedule must be: checked, completed and made read-only."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from free.arguments import as_number
from free.schedule.clipping import Clipping

Fields = dict[str, Any]


def checked(given: Fields) -> Fields:
    """The fields of a :class:`free.Schedule` by their names; see there, also for what is raised."""
    count = np.size(given["timesteps"])
    columns = ("timesteps", "a", "b", "sigma")
    f: Fields = {name: _column(name, given[name], count) for name in columns}
    _check_times(f["timesteps"], given["image"] is not None)
    whole = np.asarray(np.round(f["timesteps"]))
    if np.allclose(f["timesteps"], whole, rtol=0.0, atol=1e-9):  # 1000 * 0.3 is whole, too
        f["timesteps"] = _read_only(whole.astype(np.int64))
    if (f["sigma"] < 0).any():
        raise ValueError(f"sigma must be >= 0, got {f['sigma'].min()}")
    f["signal"], f["noise"] = _relation(given, f["a"])
    if (f["noise"] < 0).any():
        raise ValueError(f"noise must be >= 0, got {f['noise'].min()}")
    if (given["upper"] is None) != (given["mixture"] is None):
        raise ValueError("upper and mixture must be given together, got one of them")
    if given["upper"] is not None:
        f["upper"] = _column("upper", given["upper"], count)
        if ((f["upper"] < f["sigma"]) | ((f["upper"] > 0) & (f["sigma"] == 0))).any():
            raise ValueError("upper must be >= sigma, and 0 where sigma is, got another")
    f |= _image(given, count)
    for name, allowed in (("input_scale", "> 0"), ("guided", "in [0, 1]")):
        if given[name] is not None:
            f[name] = column = _column(name, given[name], count)
            wrong = (column <= 0) if name == "input_scale" else (column < 0) | (column > 1)
            if wrong.any():
                raise ValueError(f"{name} must be {allowed}, got {column[wrong][0]}")
    f["start"] = as_number(given["start"], "start must be a finite number > 0", math.ulp(0.0))
    return f


def _check_times(times: NDArray[Any], of_images: bool) -> None:
    if (times < 0).any():
        raise ValueError(f"timesteps must be >= 0, got {times}")
    # With an image two transitions may be of one timestep: that of noise levels is rounded.
    falls = np.diff(times)
    if (rises := falls > 0 if of_images else falls >= 0).any():
        k = int(rises.argmax())
        raise ValueError(
            "timesteps must fall from step to step, "
            f"got {times[k]:g} and then {times[k + 1]:g} at step {k + 1}"
        )


def _relation(given: Fields, a: NDArray[np.float64]) -> tuple[NDArray[Any], NDArray[Any]]:
    """``signal`` and ``noise``, as given or as ``a`` tells them."""
    signal, noise = given["signal"], given["noise"]
    if (signal is None) != (noise is None):
        raise ValueError("signal and noise must be given together, got one of them")
    if signal is None and given["image"] is not None:
        raise ValueError("signal and noise must be given with an image, got none")
    if signal is None:
        scale = np.cumprod(a[::-1])[::-1]
        signal = np.divide(1.0, scale, out=np.full_like(scale, np.inf), where=scale != 0)
        signal = np.where(np.isfinite(signal), signal, 0.0)
        noise = np.sqrt(np.clip(1.0 - np.square(signal), 0.0, None))
    return _column("signal", signal, a.size), _column("noise", noise, a.size)


def _image(given: Fields, count: int) -> Fields:
    """What belongs to a law of x0."""
    if given["image"] is None:
        for name in ("c", "clipping"):
            if given[name] is not None:
                raise ValueError(f"{name} must be None without an image, got one")
        return {}
    image = np.array(given["image"], dtype=np.float64)
    if image.shape != (2, count) or not np.isfinite(image).all():
        raise ValueError(
            f"image must be finite, of shape [2, {count}], got shape {list(image.shape)}"
        )
    if (wrong := image[1] == 0).any():
        raise ValueError(f"image must have q != 0, got 0 at step {int(wrong.argmax())}")
    f: Fields = {"image": _read_only(image)}
    if given["c"] is not None:
        f["c"] = _column("c", given["c"], count)
        if f["c"][0] != 0:
            raise ValueError(f"c must be 0 at the first transition, got {f['c'][0]}")
    if (clipping := given["clipping"]) is not None:
        if not isinstance(clipping, Clipping):
            raise TypeError(f"clipping must be a Clipping or None, got {clipping!r}")
        clipping.check()
    return f


def _column(name: str, value: ArrayLike, count: int) -> NDArray[np.float64]:
    column = np.array(value, dtype=np.float64)
    if column.ndim != 1 or column.size == 0:
        raise ValueError(f"{name} must be a non-empty vector, got shape {column.shape}")
    if column.size != count:
        raise ValueError(f"{name} must have one entry per transition ({count}), got {column.size}")
    if not np.isfinite(column).all():
        raise ValueError(f"{name} must be finite, got {column[~np.isfinite(column)][0]}")
    return _read_only(column)


def _read_only(array: NDArray[Any]) -> NDArray[Any]:
    array.setflags(write=False)
    return array
