"""All randomness of training: a function of the seed, the step and the row, and of nothing else.

A row is a place in the batch of all ranks and micro-batches together. So a run that is resumed
repeats nothing, and neither the number of ranks nor how a batch is split changes what is drawn.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from enum import IntEnum

import torch
from torch import Tensor

from free.rounds.noise import as_seeds, normal, uniform

__all__ = [
    "RowRandom",
    "Stream",
    "images_at",
    "random_subset",
    "shuffled",
]

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

    Parameters
    ----------
    seed : int
        64 bits.
    step : int
        ``0 .. 2**32 - 1``.
    rows : range
        Places in the batch of the whole step, ``0 .. 2**32 - 1``.
    device : torch.device or str, optional
    stream : Stream

    Attributes
    ----------
    step : int
    rows : range
    """

    def __init__(
        self,
        seed: int,
        step: int,
        rows: range,
        device: torch.device | str | None = None,
        stream: Stream = Stream.LOSS,
    ) -> None:
        self.step = step
        self.rows = rows
        self._rows = torch.tensor(rows, dtype=torch.int64, device=device)
        self._seeds = as_seeds(seed, device).repeat(len(rows))
        self._next = int(stream) * _DRAWS

    def __len__(self) -> int:
        """Number of rows, R."""
        return len(self._rows)

    def normal(self, shape: Sequence[int]) -> Tensor:
        """Standard normals [R, *shape], float32."""
        return normal(self._seeds, self.step, self._rows, self._purpose(), shape)

    def uniform(self) -> Tensor:
        """Uniforms [R] in [0, 1), float32, multiples of ``2**-24``."""
        return uniform(self._seeds, self.step, self._rows, self._purpose(), ())

    def integers(self, end: int) -> Tensor:
        """Integers [R] in ``0 .. end - 1``, int64; ``end`` at most ``2**24``.

        Raises
        ------
        ValueError
            If ``end`` is out of its range.
        """
        if not 1 <= end <= 1 << 24:
            raise ValueError(f"end must be in 1..{1 << 24}, got {end}")
        return (self.uniform().double() * end).long()

    def _purpose(self) -> int:
        self._next += 1
        return self._next - 1


@functools.lru_cache(maxsize=4)  # one epoch serves many steps; a batch may straddle two
def shuffled(count: int, seed: int, number: int, stream: Stream = Stream.ORDER) -> Tensor:
    """A uniformly random order of ``0 .. count - 1``.

    Parameters
    ----------
    count : int
    seed : int
        64 bits.
    number : int
        Orders of different numbers are independent; the epoch.
    stream : Stream

    Returns
    -------
    Tensor, shape [count], int64
        Kept for the next call: not to be written to.
    """
    random = RowRandom(seed, number, range(count), stream=stream)
    # Two draws of 24 bits: among millions of images a single one would have ties.
    key = (random.uniform().double() * 2**24 + random.uniform().double()) * 2**24
    return key.long().argsort(stable=True)


def images_at(count: int, seed: int, step: int, rows: range, of: int) -> Tensor:
    """The images of some rows of one training step.

    Row r of step s is place ``s * of + r`` of a sequence of epochs, each of which shows every image
    once, in an order of its own. So neither the number of ranks, nor micro-batches, nor resuming
    change which image a place has.

    Parameters
    ----------
    count : int
        Images of an epoch.
    seed : int
        64 bits.
    step : int
    rows : range
        Within ``0 .. of - 1``.
    of : int
        Rows of the step, all ranks and micro-batches together.

    Returns
    -------
    Tensor, shape [R], int64
        In ``0 .. count - 1``.

    Raises
    ------
    ValueError
        If the rows are not of this batch.
    """
    if not rows or min(rows) < 0 or max(rows) >= of:
        raise ValueError(f"rows must be some of 0..{of - 1}, the batch of a step, got {rows}")
    places = step * of + torch.tensor(rows, dtype=torch.int64)
    epochs = places // count
    index = torch.empty_like(places)
    for epoch in epochs.unique().tolist():
        mine = epochs == epoch
        index[mine] = shuffled(count, seed, epoch)[places[mine] % count]
    return index


def random_subset(count: int, share: float, seed: int) -> Tensor:
    """A share of ``0 .. count - 1`` without replacement, at least one, ascending; int64.

    Raises
    ------
    ValueError
        If ``share`` is not in (0, 1].
    """
    if not 0 < share <= 1:
        raise ValueError(f"subset must be in (0, 1], got {share}")
    kept = shuffled(count, seed, 0, Stream.SUBSET)[: max(1, round(share * count))]
    return kept.sort().values
