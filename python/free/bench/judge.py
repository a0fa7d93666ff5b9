"""The quality of each law: rows that draw from one distribution are judged together."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Iterator
from typing import Any, NamedTuple

import torch

from free.bench.draws import Draws
from free.evaluation import Figure, named_as_asked, quality
from free.evaluation.features import FeatureNetwork
from free.evaluation.measured import Measured
from free.images.autoencoder import LatentCoder, PixelCoder
from free.images.picture import to_uint8

#: Images that are drawn and looked at together, at most.
BATCH = 8


class Judge(NamedTuple):
    """What images are judged by.

    ``images`` of each law are judged, as many of each of the model's classes; ``reference`` serves
    distances, if there are enough images.
    """

    images: int
    classes: int
    network: FeatureNetwork
    coder: LatentCoder | PixelCoder
    reference: Measured | None = None

    def _quota(self) -> Counter[int]:
        """How many images of each class."""
        return Counter(i % self.classes for i in range(self.images))

    def missing(self, draws: list[Draws]) -> list[int]:
        """Labels of images that the rows of a law have yet to draw."""
        return sorted((self._quota() - Counter(y for row in draws for y in row.labels)).elements())

    def completing(self, draws: list[Draws]) -> Iterator[None]:
        """Have the rows of a law draw in turn what is missing; yields after each batch."""
        for row in itertools.cycle(draws):
            if not (labels := self.missing(draws)):
                return
            row.more(labels[:: math.ceil(len(labels) / BATCH)])
            yield

    def figures(self, draws: list[Draws]) -> dict[str, Figure]:
        """Figures of one law, of equally many images of each class, from its rows alike.

        ``draws`` are those of the rows of the law, complete. The figures are ``accuracy``, where
        the network knows the classes, and those of :class:`free.evaluation.Quality`, where there
        are a reference and enough images.
        """
        left = self._quota()
        labels, samples = [], []
        # The first image of every row, then the second, ...
        for place in range(max(len(row.labels) for row in draws)):
            for row in draws:
                if place < len(row.labels) and left[row.labels[place]]:
                    left[row.labels[place]] -= 1
                    labels.append(row.labels[place])
                    samples.append(row.samples[place])
        images = [
            to_uint8(self.coder.decode(torch.stack(samples[start : start + BATCH])).cpu())
            for start in range(0, len(samples), BATCH)
        ]
        pixels: Any = torch.cat(images).numpy()
        classes = labels if self.network.classes == self.classes else None
        if self.reference is not None and len(pixels) > self.network.dims:
            return quality(pixels, self.reference, self.network, labels=classes).figures
        if classes is None:
            return {}
        return {"accuracy": named_as_asked(pixels, classes, self.network)}

    def to_dict(self) -> dict[str, Any]:
        """Describe it for JSON."""
        return {
            "images": self.images,
            "features": self.network.name,
            "reference": 0 if self.reference is None else len(self.reference),
        }
