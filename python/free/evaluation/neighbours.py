"""Precision and recall by nearest neighbours (Kynkaanniemi et al. 2019), block by block."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

#: Rows and columns of a block of distances, 8 bytes each: 16 MB.
_ROWS, _COLUMNS = 1024, 2048


def neighbour_radii(
    features: Tensor, neighbours: int = 3, tell: Callable[[int], object] = lambda rows: None
) -> Tensor:
    """Squared distance of each row of [n, D] to its k-th nearest neighbour among the others.

    They are [n] float64; k, ``neighbours``, is from 1 to n - 1, or a ValueError. ``tell`` gets
    numbers of rows as they are done.
    """
    if not 1 <= neighbours < len(features):
        raise ValueError(
            f"neighbours must be from 1 to {len(features) - 1}, one less than the images, "
            f"got {neighbours}"
        )
    radii, centre, room = [], _mean(features), _room(features)
    for rows in _blocks(features, centre, _ROWS):
        # The row itself is among them, at distance 0.
        nearest = rows.new_full((len(rows), neighbours + 1), torch.inf)
        for columns in _blocks(features, centre, _COLUMNS):
            distances = _squared_distances(rows, columns, room)
            near = distances.topk(min(neighbours + 1, len(columns)), largest=False).values
            nearest = torch.cat([nearest, near], 1).topk(neighbours + 1, largest=False).values
        radii.append(nearest[:, -1])
        tell(len(rows))
    return torch.cat(radii)


def coverage(
    samples: Tensor,
    reference: Tensor,
    sample_radii: Tensor,
    reference_radii: Tensor,
    tell: Callable[[int], object] = lambda rows: None,
) -> tuple[Tensor, Tensor]:
    """Which samples [n, D] look like references [m, D], and which references the samples reach.

    Bools [n] and [m]: whether a row is within the radius (:func:`neighbour_radii`) of some row of
    the other set. Their shares are the precision and the recall. ``tell`` gets numbers of samples
    as they are done.
    """
    inside, centre, room = [], _mean(reference), _room(reference)
    reached = torch.zeros(len(reference), dtype=torch.bool, device=reference.device)
    start = 0
    for rows in _blocks(samples, centre, _ROWS):
        own = sample_radii[start : start + len(rows), None]
        near = torch.zeros(len(rows), dtype=torch.bool, device=rows.device)
        first = 0
        for columns in _blocks(reference, centre, _COLUMNS):
            last = first + len(columns)
            distances = _squared_distances(rows, columns, room)
            near |= (distances <= reference_radii[first:last]).any(1)
            reached[first:last] |= (distances <= own).any(0)
            first = last
        inside.append(near)
        start += len(rows)
        tell(len(rows))
    return torch.cat(inside), reached


def _mean(features: Tensor) -> Tensor:
    """In float64, without a copy of them all."""
    zero = features.new_zeros(features.shape[1], dtype=torch.float64)
    total = sum((part.double().sum(0) for part in features.split(_COLUMNS)), zero)
    return total / len(features)


def _blocks(features: Tensor, centre: Tensor, size: int) -> Iterator[Tensor]:
    """Rows in float64 about the centre, where squares cancel least."""
    for part in features.split(size):
        yield part.double() - centre


def _room(features: Tensor) -> Tensor:
    """For one block of distances: blocks that came and went would leave holes in the memory."""
    return features.new_empty(_ROWS * _COLUMNS, dtype=torch.float64)


def _squared_distances(rows: Tensor, columns: Tensor, room: Tensor) -> Tensor:
    """[R, C], until the next call."""
    shape = (len(rows), len(columns))
    block = torch.mm(rows, columns.T, out=room[: shape[0] * shape[1]].view(shape))
    block.mul_(-2).add_(rows.square().sum(1)[:, None]).add_(columns.square().sum(1))
    return block.clamp_(min=0)
