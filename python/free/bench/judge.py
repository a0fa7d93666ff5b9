"""The quality of each law: rows that draw from one distribution are judged together."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any, NamedTuple

import torch

from free.bench.draws import Draws
from free.evaluation import Figure, named_as_asked, quality
from free.evaluation.features import FeatureNetwork
from free.evaluation.measured import Measured
from free.images.autoencoder import LatentCoder, PixelCoder
from free.images.picture import to_uint8

__all__ = ["Judge", "complete", "judge", "missing"]

#: Images that are drawn and looked at together, at most.
BATCH = 8


class Judge(NamedTuple):
    """What images are judged by.

    Attributes
    ----------
    images : int
        Of each law.
    network : FeatureNetwork
    reference : Measured or None
        For distances, if there are enough images.
    coder : LatentCoder or PixelCoder
    """

    images: int
    network: FeatureNetwork
    reference: Measured | None
    coder: LatentCoder | PixelCoder


def _wanted(images: int, classes: int) -> Counter[int]:
    """How many of each class: evenly."""
    return Counter(i % classes for i in range(images))


def missing(draws: list[Draws], images: int, classes: int) -> list[int]:
    """Labels of images that the rows of a law have yet to draw to be judged by so many."""
    have = Counter(label for row in draws for label in row.labels)
    return sorted((_wanted(images, classes) - have).elements())


def complete(draws: list[Draws], images: int, classes: int, tell: Callable[[int], object]) -> None:
    """Draw what is missing, by the rows of the law in turn; ``tell`` gets numbers of images."""
    labels = missing(draws, images, classes)
    for turn, start in enumerate(range(0, len(labels), BATCH)):
        batch = labels[start : start + BATCH]
        draws[turn % len(draws)].more(batch)
        tell(len(batch))


def judge(draws: list[Draws], by: Judge, classes: int) -> dict[str, Figure]:
    """Figures of one law, of equally many images of each class, from its rows alike.

    Parameters
    ----------
    draws : list of Draws
        Of the rows of the law, complete.
    by : Judge
    classes : int

    Returns
    -------
    dict of str to Figure
        ``accuracy``, where the network knows the classes; those of
        :class:`free.evaluation.Quality`, where there are a reference and enough images.
    """
    left = _wanted(by.images, classes)
    labels, samples = [], []
    # The first image of every row, then the second, ...
    for place in range(max(len(row.labels) for row in draws)):
        for row in draws:
            if place < len(row.labels) and left[row.labels[place]]:
                left[row.labels[place]] -= 1
                labels.append(row.labels[place])
                samples.append(row.samples[place])
    images = [
        to_uint8(by.coder.decode(torch.stack(samples[start : start + BATCH])).cpu())
        for start in range(0, len(samples), BATCH)
    ]
    pixels: Any = torch.cat(images).numpy()
    named = labels if by.network.classes == classes else None
    if by.reference is not None and len(pixels) > by.network.dims:
        return quality(pixels, by.reference, by.network, labels=named).figures
    return {} if named is None else {"accuracy": named_as_asked(pixels, named, by.network)}
