"""Whole runs of diffusers' own schedulers, and speculative runs that must have their law.

The reference is the loop of diffusers' documentation: ``scale_model_input``, the network, ``step``
with its own noise. Nothing of a :class:`free.Schedule` is in it. Compared are paths, all states but
the first, in two ways: with paths of whole runs of that loop, and, more sharply, by the innovations
that the scheduler's own ``step`` says they have.
"""

from __future__ import annotations

import copy
import functools
import sys
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple
from unittest import mock

import pytest
import torch
from scipy.stats import chi2
from torch import Tensor

from free import Schedule
from tests.law.cells import CHAINS, LABELS
from tests.law.paths import Run, innovations_p
from tests.law.stats import energy_test, ks_two_sample
from tests.networks import FlowTeacher, MixtureTeacher

diffusers = pytest.importorskip("diffusers")

D, STEPS = 2, 8


class Family(NamedTuple):
    """A scheduler's class and configuration, and what its ``step`` takes."""

    scheduler: str
    config: dict[str, Any]
    options: Mapping[str, Any] = MappingProxyType({})

    def teacher(self, **error: float) -> MixtureTeacher:
        """The exact network; with a ``shift`` or another ``spread`` one that is a bit wrong."""
        velocity = self.scheduler.startswith(("Flow", "LTX")) or "use_flow_sigmas" in self.config
        return (FlowTeacher if velocity else MixtureTeacher)(D, **error)

    def schedule(self) -> Schedule:
        return Schedule.from_scheduler(self.made(), STEPS, **self.options)

    def made(self) -> Any:
        return getattr(diffusers, self.scheduler)(**self.config)


_SDE = {"algorithm_type": "sde-dpmsolver++", "solver_order": 2}
FAMILIES = {
    "clipped DDPM": Family("DDPMScheduler", {}),
    "Euler ancestral": Family("EulerAncestralDiscreteScheduler", {}),
    "renoising": Family("FlowMatchEulerDiscreteScheduler", {"stochastic_sampling": True}),
    "SDE-DPM++ 2": Family(
        "DPMSolverMultistepScheduler", {**_SDE, "use_karras_sigmas": True}
    ),
    # These are slow tests.
    "thresholded DDPM": Family(
        "DDPMScheduler",
        {"thresholding": True, "dynamic_thresholding_ratio": 0.4, "sample_max_value": 1.5},
    ),
    "clipped DDIM": Family(
        "DDIMScheduler", {}, options={"eta": 0.7, "use_clipped_model_output": True}
    ),
    "LTX ancestral": Family("LTXEulerAncestralRFScheduler", {}),
    "SDE-DPM++ 1": Family("DPMSolverMultistepScheduler", {**_SDE, "solver_order": 1}),
    "SDE-DPM++ 2, Heun, flow": Family(
        "DPMSolverMultistepScheduler",
        {**_SDE, "solver_type": "heun", "use_flow_sigmas": True, "flow_shift": 2.0,
         "prediction_type": "flow_prediction"},
    ),
}  # fmt: skip


class Loop:
    """The loop of diffusers' documentation around ``scheduler.step``, a step at a time."""

    def __init__(self, family: Family, y: Tensor, cfg_scale: float) -> None:
        self.family, self.y, self.cfg_scale = family, y, cfg_scale
        self.scheduler, self.teacher = family.made(), family.teacher()
        self.scheduler.set_timesteps(STEPS)

    def predict(self, x: Tensor, t: Tensor) -> Tensor:
        """The guided prediction at states ``x [B, D]``."""
        if hasattr(self.scheduler, "scale_model_input"):
            x = self.scheduler.scale_model_input(x, t)
        t = t.expand(len(x))
        eps = self.teacher(x, t, self.y).eps
        if self.cfg_scale == 1.0:
            return eps
        none = self.teacher(x, t, torch.full_like(self.y, self.teacher.null_label)).eps
        return none + self.cfg_scale * (eps - none)

    def step(self, eps: Tensor, t: Tensor, x: Tensor, noise: float | None = None) -> Tensor:
        """The next states, with the scheduler's own noise, or all of it this number."""
        given = (eps[..., None], t, x[..., None])  # thresholds are not for [B, D]
        module = sys.modules[type(self.scheduler).step.__module__]
        drawn = module.randn_tensor
        if noise is not None:
            drawn = lambda shape, **_: torch.full(tuple(shape), noise)  # noqa: E731
        with mock.patch.object(module, "randn_tensor", drawn):
            after = self.scheduler.step(*given, return_dict=False, **self.family.options)[0]
        return after.squeeze(2)


@functools.cache
def reference(family: str, cfg_scale: float = 1.0, batches: int = 2) -> Tensor:
    """Paths of the scheduler's own loop, [batches * CHAINS, N, D]: all states but the first."""
    loop = Loop(FAMILIES[family], LABELS.repeat(batches), cfg_scale)
    path = []
    with torch.random.fork_rng():
        torch.manual_seed(20_000)
        x = torch.randn(len(loop.y), D) * getattr(loop.scheduler, "init_noise_sigma", 1.0)
        for t in loop.scheduler.timesteps:
            x = loop.step(loop.predict(x, t), t, x)
            path.append(x)
    return torch.stack(path, dim=1)


def path_of(run: Run) -> Tensor:
    """That of a speculative run, likewise [CHAINS, N, D]."""
    return torch.cat([run.states[:, 1:], run.samples[:, None]], dim=1)


def replayed_p(run: Run, family: str, cfg_scale: float = 1.0) -> float:
    """Smallest p of the tests that innovations are independent N(0, I), corrected: those of
    :func:`tests.law.paths.innovations_p`, and the sum of squares of each transition's.

    Means and sigmas are the scheduler's own. It is led along the states of the run: a step without
    noise gives the mean, its history being that of these states, and one with a noise of 1 sigma.
    Where the last step has no noise, the run must have ended at its mean: p is 0 else.
    """
    loop = Loop(FAMILIES[family], LABELS, cfg_scale)
    innovations, states = [], run.states
    for t, x, after in zip(
        loop.scheduler.timesteps, states.unbind(1), path_of(run).unbind(1), strict=True
    ):
        eps, unit = loop.predict(x, t), copy.copy(loop)
        unit.scheduler = copy.deepcopy(loop.scheduler)
        mean = loop.step(eps, t, x, 0.0)
        sigma = (unit.step(eps, t, x, 1.0) - mean).mean()
        if float(sigma) > 1e-6:
            innovations.append((after - mean) / sigma)
        elif not torch.allclose(after, mean, rtol=1e-3, atol=1e-3):
            return 0.0
    tests = [
        2 * min(chi2.cdf(square, D * CHAINS), chi2.sf(square, D * CHAINS))
        for square in (float(r.double().square().sum()) for r in innovations)
    ]
    others = innovations_p(torch.stack(innovations, 1), states[:, : len(innovations)])
    return min(1.0, 2 * others, 2 * len(tests) * min(tests))


def path_p(path: Tensor, expected: Tensor, energy: bool = False) -> float:
    """Smallest p of two-sample tests, corrected for their number.

    KS of each element of the path, and of it all in 4 random directions; with ``energy`` also the
    energy distance of a quarter of it to as much of ``expected``.
    """
    mean, scale = expected.mean(0), expected.std(0)
    path, expected = (((x - mean) / scale).flatten(1) for x in (path, expected))
    generator = torch.Generator().manual_seed(7)
    directions = torch.randn(path.shape[1], 4, generator=generator)
    directions /= directions.norm(dim=0)
    elements = zip(
        torch.cat([path, path @ directions], dim=1).T,
        torch.cat([expected, expected @ directions], dim=1).T,
        strict=True,
    )
    tests = [ks_two_sample(x, y) for x, y in elements]
    if energy:
        part = CHAINS // 4
        tests.append(energy_test(path[:part], expected[:part], block=1250, permutations=200))
    return min(1.0, len(tests) * min(tests))
