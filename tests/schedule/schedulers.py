"""Steps of diffusers' own schedulers, with a noise that is given, and ours beside them."""

from __future__ import annotations

import copy
import sys
from typing import Any
from unittest import mock

import torch
from torch import Tensor

from free import Schedule
from free.schedule.table import Table

SHAPE = (3, 2, 4, 4)


def random_states(schedule: Schedule, k: int, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """A state of transition ``k``, a prediction and a noise, [3, 2, 4, 4]."""
    generator = torch.Generator().manual_seed(100 * seed + k)
    u, n, y, z = torch.randn((4, *SHAPE), generator=generator)
    return float(schedule.signal[k]) * u + float(schedule.noise[k]) * n, y, z


def real_step(
    scheduler: Any,
    k: int,
    rows: list[tuple[Tensor, Tensor, Tensor]],
    options: dict[str, Any],
) -> tuple[Tensor, Tensor]:
    """What the scheduler makes of the last of ``rows``, and what its network is given.

    Its steps before are made of the other rows; the last is step ``k``.
    """
    scheduler = copy.deepcopy(scheduler)
    first = k + 1 - len(rows)
    if hasattr(scheduler, "set_begin_index"):
        scheduler.set_begin_index(first)
    for at, (x, y, z) in enumerate(rows, first):
        t = scheduler.timesteps[at]
        given = network_input(scheduler, x, t)
        result = noisy_step(scheduler, y, t, x, z, options)
    return result, given


def network_input(scheduler: Any, x: Tensor, t: Tensor) -> Tensor:
    """What the network is given of a state."""
    scale = getattr(scheduler, "scale_model_input", None)
    return x if scale is None else scale(x, t)


def noisy_step(
    scheduler: Any, y: Tensor, t: Tensor, x: Tensor, z: Tensor, options: dict[str, Any]
) -> Tensor:
    """The scheduler's step from ``x`` with the noise ``z``."""
    module = sys.modules[type(scheduler).step.__module__]
    with mock.patch.object(module, "randn_tensor", return_value=z):
        return scheduler.step(y, t, x, return_dict=False, **options)[0]


def own_step(
    schedule: Schedule, k: int, rows: list[tuple[Tensor, Tensor, Tensor]]
) -> tuple[Tensor, Tensor]:
    """Likewise, by the schedule's float32 table."""
    table = Table.of(schedule, "cpu")

    def at(step: int) -> Tensor:
        return torch.full((len(rows[0][0]),), step)

    before = None
    if len(rows) > 1:
        before = table.guess(at(k - 1), *rows[-2][:2])
    x, y, z = rows[-1]
    guess = table.guess(at(k), x, y)
    mean = table.mean(at(k), x, guess, before)
    return mean + table.sigma[k] * z, table.network_input(at(k), x)


def error(found: Tensor, expected: Tensor) -> float:
    """Largest difference, in units of the largest entry."""
    return float((found - expected).abs().max() / expected.abs().max())
