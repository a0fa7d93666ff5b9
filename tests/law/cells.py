"""Cells: ways to draw that must all have their teacher's law, each judged by one run.

A cell is 20,000 chains of 12 transitions with a teacher that is strongly nonlinear or nearly
linear, and a drafter that is rejected often, so that the samples of a batch are soon at different
steps. Of each, 220,000 innovations are tested (:mod:`tests.law.paths`), and the samples against
200,000 sequential ones, or 100,000 under guidance and without x0.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from free import FrozenDrafter, Schedule, SequentialSampler, SpeculativeSampler
from free.drafters import Drafter
from tests.law.paths import Run, run
from tests.networks import AnchoredDrafter, CallableDrafter, Carry, MixtureTeacher
from tests.rules import Erratic

CHAINS = 20_000
LABELS = torch.arange(CHAINS) % 3
#: A correct sampler falls below by chance once in 10,000 runs of a test.
LEVEL = 1e-4

SCHEDULES = {
    "ddpm": Schedule.ddpm(12),
    # It does not say how eps tells x0, so drafts are guesses of eps.
    "without x0": Schedule(
        timesteps=Schedule.ddpm(12).timesteps,
        a=np.full(12, 0.97),
        b=np.linspace(-0.35, -0.15, 12),
        sigma=np.append(np.linspace(0.4, 0.15, 11), 0.0),
    ),
}


class Case(NamedTuple):
    """A teacher, and another one that its drafter takes for it."""

    teacher: MixtureTeacher
    guess: MixtureTeacher


CASES = {
    "nonlinear": Case(MixtureTeacher(2), MixtureTeacher(2, shift=0.8, spread=0.3)),
    "near": Case(MixtureTeacher(2), MixtureTeacher(2, shift=0.25, spread=0.3)),
    "nearly linear": Case(MixtureTeacher(2, spread=1.0), MixtureTeacher(2, shift=2.0, spread=1.0)),
}


class Unchecked(CallableDrafter):
    """Takes whatever carry it is given; planted bugs would not get past the checks."""

    def predict(self, x: Tensor, k: Tensor, y: Tensor, carry: Carry) -> tuple[Tensor, Carry]:
        return self.guess(x, self.table.timesteps[k], y).eps, Carry(k)


DRAFTERS: dict[str, Callable[[MixtureTeacher], Drafter]] = {
    "opaque": CallableDrafter,
    "in turn": functools.partial(CallableDrafter, in_turn=True),
    "anchored": AnchoredDrafter,
    "image": lambda _: FrozenDrafter("image"),
    "eps": lambda _: FrozenDrafter("eps"),
    "unchecked": Unchecked,
}


class Cell(NamedTuple):
    """Settings of a sampler."""

    window: Any
    sweeps: int | str | None = None
    recycle: bool | str = False
    verifier: str = "reflection"
    drafter: str = "opaque"
    case: str = "nonlinear"
    cfg_scale: float = 1.0
    schedule: str = "ddpm"

    def sampler(self) -> SpeculativeSampler:
        teacher, guess = CASES[self.case]
        in_turn = self.sweeps is None and self.drafter == "opaque"
        return SpeculativeSampler(
            teacher,
            DRAFTERS["in turn" if in_turn else self.drafter](guess),
            SCHEDULES[self.schedule],
            Erratic(7) if self.window == "erratic" else self.window,
            self.cfg_scale,
            sweeps=self.sweeps,
            recycle=self.recycle,
            verifier=self.verifier,
        )

    def run(self, seed: int) -> Run:
        return run(self.sampler(), LABELS, seed)

    def sequential(self) -> Tensor:
        return _sequential("nonlinear" if self.case == "near" else self.case, *self[-2:])


@functools.cache
def _sequential(case: str, cfg_scale: float, schedule: str) -> Tensor:
    sampler = SequentialSampler(CASES[case].teacher, SCHEDULES[schedule], cfg_scale)
    batches = 10 if (cfg_scale, schedule) == (1.0, "ddpm") else 5
    return sampler.sample(LABELS.repeat(batches), seed=10**9).samples
