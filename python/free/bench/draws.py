"""Batches that one sampler draws, one after the other, and what is kept of them."""

from __future__ import annotations

import torch
from torch import Tensor

from free import devices as memory
from free.bench.rows import Row
from free.devices import device_of
from free.rounds.report import Report
from free.sampling.sequential import SequentialSampler
from free.sampling.speculative import SpeculativeSampler

#: Seeds from one sampler's first to the next one's, and to those of batches that are not timed.
APART, _UNTIMED = 10**6, 5 * 10**5


class Draws:
    """Called, it draws a batch: image ``i`` of class ``i`` modulo their number.

    ``law`` is the name of the distribution that a row draws from in so many steps. Seeds are from
    ``seed`` on, :data:`APART` of them at most: no two images of a table should have one, so that
    those of several rows are independent.

    ``reports`` are those of the timed batches; ``labels`` and ``samples`` ([C, H, W], on the CPU)
    are of all images. ``peak`` is in bytes, of the batches from the second on: the first may
    measure or compile.
    """

    def __init__(
        self,
        row: Row,
        law: str,
        sampler: SequentialSampler | SpeculativeSampler,
        classes: int,
        batch_size: int,
        seed: int,
    ) -> None:
        self.row = row
        self.law = law
        self.steps = len(sampler.schedule)
        self.sampler = sampler
        self.reports: list[Report] = []
        self.labels: list[int] = []
        self.samples: list[Tensor] = []
        self.peak: int | None = None
        self._classes = classes
        self.batch_size = batch_size
        self._seed = seed
        self._device = device_of(sampler.teacher) or torch.device("cpu")
        self._untimed = 0

    def __call__(self) -> None:
        """Draw the next batch."""
        first = len(self.reports) * self.batch_size
        labels = [(first + i) % self._classes for i in range(self.batch_size)]
        memory.reset_peak(self._device)
        result = self.sampler.sample(labels, self._seed + first)
        if self.reports:
            self.peak = max(self.peak or 0, memory.peak(self._device) or 0) or None
        self.reports.append(result.report)
        self._keep(labels, result.samples)

    def more(self, labels: list[int]) -> None:
        """Draw images that no time is taken of, one for each label."""
        seed = self._seed + _UNTIMED + self._untimed
        self._keep(labels, self.sampler.sample(labels, seed).samples)
        self._untimed += len(labels)

    def _keep(self, labels: list[int], samples: Tensor) -> None:
        self.labels += labels
        self.samples += list(samples.cpu())  # waits for a GPU, and leaves it its memory
