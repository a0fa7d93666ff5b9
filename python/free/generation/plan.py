"""What image ``i`` of a large set is: its class, its noise, and the batch it is drawn in.

All three are functions of the settings and of ``i`` alone, so it does not matter which process
draws an image, or when.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from free.arguments import as_integer
from free.rounds.noise import Purpose, as_seeds, uniform
from free.sampling.request import check_request


@dataclass(frozen=True)
class Plan:
    """Images to draw, in chunks of ``batch_size``.

    A chunk is one call of the sampler, always with the same companions: the rounding of a batched
    product depends on them. Labels are [num] int64; image ``i`` has the noise seed
    ``first_seed + i``, modulo 2**64.
    """

    labels: NDArray[np.int64]
    first_seed: int
    batch_size: int

    def __len__(self) -> int:
        """How many chunks there are."""
        return -(-len(self.labels) // self.batch_size)

    def span(self, chunk: int) -> slice:
        """The images of a chunk."""
        start = chunk * self.batch_size
        return slice(start, min(start + self.batch_size, len(self.labels)))

    def size(self, chunk: int) -> int:
        """How many images a chunk has."""
        span = self.span(chunk)
        return int(span.stop - span.start)

    def images(self, chunks: NDArray[np.bool_]) -> int:
        """How many images these chunks have together; ``chunks`` [len(self)]."""
        return sum(map(self.size, np.flatnonzero(chunks).tolist()))

    def seeds(self, chunk: int) -> list[int]:
        """Noise seeds of a chunk's images, as a report has them (-2**63 .. 2**63 - 1)."""
        span = self.span(chunk)
        return as_seeds(
            [(self.first_seed + i) % 2**64 for i in range(span.start, span.stop)]
        ).tolist()


def make_plan(
    teacher: Any, num: int, labels: str | Sequence[int], seed: int, batch_size: int
) -> Plan:
    """Check what is asked for, and say what each image is.

    Parameters
    ----------
    teacher : Teacher
        Its ``num_classes`` are the classes that "random" and "balanced" take from.
    num, batch_size : int
        Images, and how many are drawn together; >= 1.
    labels : {"random", "balanced"} or sequence of int
        Uniformly random classes; all classes in turn; or these in turn.
    seed : int
        64 bits. Of the noise as of the random classes; other seeds have other noises throughout.

    Raises
    ------
    ValueError
        If an argument is out of its range; names it.
    """
    num = as_integer(num, "num must be an integer >= 1", 1, 2**32 - 1)
    batch_size = as_integer(batch_size, "batch_size must be an integer >= 1", 1, 2**32 - 1)
    seed = as_integer(seed, "seed must be an integer in -2**63..2**64-1", -(2**63), 2**64 - 1)
    if isinstance(labels, str):
        classes = getattr(teacher, "num_classes", None)
        if labels not in ("random", "balanced"):
            raise ValueError(f"labels must be 'random', 'balanced' or classes, got {labels!r}")
        if classes is None:
            raise ValueError(f"teacher must have num_classes for labels {labels!r}, got none")
        if labels == "random":
            every = torch.arange(num, device="cpu")
            shares = uniform(seed, every, 0, Purpose.LABEL, ()).double()
            ids = (shares * classes).long().numpy()
        else:
            ids = np.arange(num) % classes
    else:
        if not len(labels):
            raise ValueError("labels must be 'random', 'balanced' or classes, got none")
        check_request(teacher, sorted(set(labels)), 0, None)
        ids = np.resize(np.asarray(labels, np.int64), num)
    # Runs with neighbouring seeds must not share noises, so image 0 starts anywhere.
    first = int.from_bytes(hashlib.sha256(str(seed % 2**64).encode()).digest()[:8], "big")
    return Plan(ids.astype(np.int64), first, batch_size)
