"""Which image a place in training shows: a function of the seed and the place, of nothing else."""

from __future__ import annotations

import functools

import torch
from torch import Tensor

from free.training.randomness import RowRandom, Stream


@functools.lru_cache(maxsize=4)  # one epoch serves many steps; a batch may straddle two
def shuffled(count: int, seed: int, number: int, stream: Stream = Stream.ORDER) -> Tensor:
    """A uniformly random order of ``0 .. count - 1``, int64, by a seed of 64 bits.

    Orders of different numbers (epochs) are independent. It is kept for the next call: not to be
    written to.
    """
    random = RowRandom(seed, number, range(count), stream=stream)
    # Two draws of 24 bits: among millions of images a single one would have ties.
    key = (random.uniform().double() * 2**24 + random.uniform().double()) * 2**24
    return key.long().argsort(stable=True)


def images_at(count: int, seed: int, step: int, rows: range, batch_size: int) -> Tensor:
    """The images of some rows of one training step, [R] int64 in ``0 .. count - 1``.

    Row r of step s is place ``s * batch_size + r`` of a sequence of epochs, each of which shows
    every image once, in an order of its own. So neither the number of ranks, nor micro-batches,
    nor resuming change which image a place has.

    Parameters
    ----------
    count : int
        Images of an epoch.
    seed : int
        64 bits.
    rows : range
        Within ``0 .. batch_size - 1``; others are a ValueError.
    batch_size : int
        Rows of the step, all ranks and micro-batches together.
    """
    if not rows or min(rows) < 0 or max(rows) >= batch_size:
        raise ValueError(
            f"rows must be some of 0..{batch_size - 1}, the batch of a step, got {rows}"
        )
    places = step * batch_size + torch.tensor(rows, dtype=torch.int64, device="cpu")
    epochs = places // count
    index = torch.empty_like(places)
    for epoch in epochs.unique().tolist():
        mine = epochs == epoch
        index[mine] = shuffled(count, seed, epoch)[places[mine] % count]
    return index


def random_subset(count: int, share: float, seed: int) -> Tensor:
    """A share of ``0 .. count - 1`` without replacement, at least one, ascending; int64.

    A ValueError if ``share`` is not in (0, 1].
    """
    if not 0 < share <= 1:
        raise ValueError(f"subset must be in (0, 1], got {share}")
    kept = shuffled(count, seed, 0, Stream.SUBSET)[: max(1, round(share * count))]
    return kept.sort().values
