"""Networks, teachers and drafters that the tests share."""

from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from free import Schedule, TeacherOutput
from free.drafters import DraftingBatch
from free.models.output import TeacherRows
from free.schedule.table import eps_from_image, image_from_eps


def randomized(network: torch.nn.Module, seed: int = 0) -> torch.nn.Module:
    """Non-zero weights everywhere: adaLN-Zero starts with an output of zeros."""
    generator = torch.Generator().manual_seed(seed)
    for weight in network.parameters():
        weight.data = 0.2 * torch.randn(weight.shape, generator=generator)
    return network.eval().requires_grad_(False)


class MixtureTeacher:
    """The exact eps of data that is a mixture of three Gaussians for each of two classes.

    Strongly nonlinear between the modes. The null class is the union of the two.

    Parameters
    ----------
    dimensions : int
    shift, spread : float
        Displacement of the modes and their standard deviation; change them for a teacher that
        is a bit wrong, that is, for a drafter.
    """

    num_classes = 2
    null_label = 2

    def __init__(self, dimensions: int = 2, shift: float = 0.0, spread: float = 0.15) -> None:
        generator = torch.Generator().manual_seed(5)
        self.sample_shape = (dimensions,)
        self.modes = 1.2 * torch.randn(6, dimensions, generator=generator) + shift
        self.spread = spread
        self.abar = torch.from_numpy(np.cumprod(1 - np.linspace(1e-4, 2e-2, 1000)))

    def __call__(self, x: Tensor, t: Tensor, y: Tensor) -> TeacherOutput:
        abar = self._abar_at(t)
        variance = abar * self.spread**2 + 1 - abar  # [R]
        # Rows last: sums over few dimensions and modes then run along memory.
        offset = x.T - abar.sqrt() * self.modes[:, :, None]  # [6, D, R]
        pull = (self._posterior(offset, variance, y) * offset).sum(0)
        return TeacherOutput(((1 - abar).sqrt() * pull / variance).T.contiguous())

    def _abar_at(self, t: Tensor) -> Tensor:
        """Between two training steps noise over signal is linear, as samplers of fractional
        timesteps have it.
        """
        if not t.is_floating_point():
            return self.abar[t].float()
        level = (1 / self.abar - 1).sqrt()
        low = t.double().floor().long()
        between = level[low].lerp(level[(low + 1).clamp(max=len(level) - 1)], t.double() - low)
        return (1 / (1 + between.square())).float()

    def _posterior(self, offset: Tensor, variance: Tensor, y: Tensor) -> Tensor:
        """Each mode's share of a state, [6, 1, R]."""
        hidden = (y != torch.arange(6)[:, None] // 3) & (y != self.null_label)
        logit = (-offset.square().sum(1) / (2 * variance)).masked_fill(hidden, -torch.inf)
        return logit.softmax(0)[:, None]


class FlowTeacher(MixtureTeacher):
    """The exact velocity ``E[n - x0 | x]`` of the same mixtures along ``x = (1 - t) x0 + t n``."""

    def __call__(self, x: Tensor, t: Tensor, y: Tensor) -> TeacherOutput:
        time = t.float() / 1000
        variance = (1 - time) ** 2 * self.spread**2 + time**2
        offset = x.T - (1 - time) * self.modes[:, :, None]  # [6, D, R]
        pull = (time - (1 - time) * self.spread**2) * offset / variance - self.modes[:, :, None]
        share = self._posterior(offset, variance, y)
        return TeacherOutput((share * pull).sum(0).T.contiguous())


class OneImage(torch.nn.Module):
    """Predicts one and the same image, of the value 0.3, whatever it is shown."""

    sample_shape, num_classes, null_label = (1, 4, 4), 3, 3

    def __init__(self, schedule: Schedule) -> None:
        super().__init__()
        self.signal = torch.zeros(1000)
        self.signal[torch.tensor(schedule.timesteps)] = torch.tensor(schedule.signal).float()

    def forward(self, x: Tensor, t: Tensor, y: Tensor) -> TeacherOutput:
        eps = eps_from_image(x, torch.full_like(x, 0.3), self.signal[t])
        return TeacherOutput(eps, torch.ones(len(x), 4, 16))

    def label_embedding(self, y: Tensor) -> Tensor:
        return torch.zeros(len(y), 16)


class Carry(NamedTuple):
    """What :class:`CallableDrafter` is handed on: it says itself which row it belongs to."""

    k: Tensor


class CallableDrafter:
    """Any teacher-like callable as a drafter. Its carry proves that the sampler hands on the carry
    of an earlier step; ``in_turn``, of the step before, as it must where states are drafted one
    after the other.
    """

    def __init__(self, guess: Any, strength: float = 1.0, in_turn: bool = False) -> None:
        self.guess, self.strength, self.in_turn = guess, strength, in_turn

    def begin(self, batch: DraftingBatch) -> None:
        self.table = batch.table

    def predict(self, x: Tensor, k: Tensor, y: Tensor, carry: Carry) -> tuple[Tensor, Carry]:
        steps = k - carry.k
        assert (steps == 1).all() if self.in_turn else (steps > 0).all()
        given = self.table.network_input(k, x)
        return self.strength * self.guess(given, self.table.time(k), y).eps, Carry(k)

    def carry_from(self, teacher_output: TeacherRows, rows: Tensor) -> Carry:
        return Carry(teacher_output.k[rows])


class AnchoredDrafter(CallableDrafter):
    """The callable's x0 at a state, less the one at the mean that led there, as a change of x0."""

    def change(
        self, x: Tensor, mean: Tensor, k: Tensor, y: Tensor, carry: Carry
    ) -> tuple[Tensor, Carry]:
        states, signal = torch.cat([x, mean]), self.table.signal[k].repeat(2)
        eps, _ = self.predict(states, k.repeat(2), y.repeat(2), Carry(carry.k.repeat(2)))
        at_state, at_mean = image_from_eps(states, eps, signal).chunk(2)
        return at_state - at_mean, Carry(k)

    def carry_of_change(self, teacher_output: TeacherRows, rows: Tensor) -> Carry:
        return self.carry_from(teacher_output, rows)
