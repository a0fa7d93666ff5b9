"""All randomness of training: a function of the seed, the step and the row, and of nothing else.

A row is a place in the batch of all ranks and micro-batches together. So a run that is resumed
repeats nothing, and neither the number of ranks nor how a batch is split changes what is drawn.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import IntEnum

import torch
from torch import Tensor

from free.rounds.noise import as_seeds, normal, uniform

# Draws of a stream. Above the purposes of sampling: a run of training may share a sampler's seed.
_DRAWS = 1 << 16


class Stream(IntEnum):
    """Who draws; their numbers are independent."""

    LOSS = 1
    DATA = 2
    ORDER = 3
    SUBSET = 4


class RowRandom:
    """The numbers of some rows of one training step; each draw is independent of those before.

    ``seed`` has 64 bits; ``step`` and the ``rows``, places in the batch of the whole step, are
    below ``2**32``.
    """

    def __init__(
        self,
        seed: int,
        step: int,
        rows: range,
        device: torch.device | str = "cpu",
        stream: Stream = Stream.LOSS,
    ) -> None:
        self.step = step
        self._rows = torch.tensor(rows, dtype=torch.int64, device=device)
        self._seeds = as_seeds(seed, device).repeat(len(rows))
        self._next = int(stream) * _DRAWS

    def normal(self, shape: Sequence[int]) -> Tensor:
        """Standard normals [R, *shape], float32."""
        return normal(self._seeds, self.step, self._rows, self._purpose(), shape)

    def uniform(self) -> Tensor:
        """Uniforms [R] in [0, 1), float32, multiples of ``2**-24``."""
        return uniform(self._seeds, self.step, self._rows, self._purpose(), ())

    def integers(self, end: int) -> Tensor:
        """Integers [R] in ``0 .. end - 1``, int64; a ValueError unless ``1 <= end <= 2**24``."""
        if not 1 <= end <= 1 << 24:
            raise ValueError(f"end must be in 1..{1 << 24}, got {end}")
        return (self.uniform().double() * end).long()

    def _purpose(self) -> int:
        self._next += 1
        return self._next - 1
