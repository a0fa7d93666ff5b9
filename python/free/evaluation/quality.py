"""Quality of a set of images beside another, with intervals."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from free.evaluation.bootstrap import QUANTILE, standard_errors, wilson_interval
from free.evaluation.feature_networks import load_network
from free.evaluation.features import FeatureNetwork
from free.evaluation.image_stream import open_images
from free.evaluation.measure_pair import Labels, check_labels, measure_pair
from free.evaluation.measured import Measured, measure
from free.evaluation.neighbours import coverage, neighbour_radii
from free.evaluation.statistics import (
    Gaussian,
    covariance_factor,
    frechet_distance,
    gaussian,
    inception_score,
)

#: Of each figure: what it is with the network that defines FID, and with any other.
_TITLES = {
    "frechet": ("FID", "Frechet distance, {} features"),
    "spatial_frechet": ("sFID", "spatial Frechet distance, {} features"),
    "score": ("Inception Score", "class score, {} (the Inception Score's formula)"),
    "precision": ("precision", "precision, {} features"),
    "recall": ("recall", "recall, {} features"),
    "accuracy": ("named as asked for", "named as asked for, {}"),
}


@dataclasses.dataclass(frozen=True)
class Figure:
    """A number with its 95 % interval; the ends are None where nothing was resampled."""

    value: float
    low: float | None = None
    high: float | None = None


@dataclasses.dataclass(frozen=True)
class Quality:
    """Figures of a set of images beside a reference.

    Attributes
    ----------
    samples, reference : int
        Images of each; 0 for a reference of statistics alone.
    features : str
        The feature network.
    is_inception : bool
        Whether the figures are FID, sFID and Inception Score.
    published : bool
        Whether Frechet distances are to statistics that the reference brought along.
    neighbours, resamples : int
    figures : dict of str to Figure
        ``frechet``, ``spatial_frechet``, ``score``, ``precision``, ``recall``, ``accuracy``; those
        that could be taken.
    left_out : dict of str to str
        Of ``samples`` and ``reference``, where a folder has files that are no images: how many, and
        of which kinds.
    """

    samples: int
    reference: int
    features: str
    is_inception: bool
    published: bool
    neighbours: int
    resamples: int
    figures: dict[str, Figure]
    left_out: dict[str, str] = dataclasses.field(default_factory=dict)

    def title(self, figure: str) -> str:
        """What a figure is called: FID and the like only with the network that defines them."""
        return _TITLES[figure][not self.is_inception].format(self.features)

    def to_json(self) -> str:
        """All of it, with titles, as one JSON object."""
        record = dataclasses.asdict(self)
        for name, figure in record["figures"].items():
            figure["title"] = self.title(name)
        return json.dumps(record, allow_nan=False)


def quality(
    samples: Any,
    reference: Any,
    features: str | FeatureNetwork = "auto",
    *,
    labels: Labels | None = None,
    neighbours: int = 3,
    resamples: int = 50,
    seed: int = 0,
    batch_size: int = 64,
    device: torch.device | str = "cpu",
    keep_reference: str | Path | None = None,
    progress: bool = False,
) -> Quality:
    """Compare a set of images with a reference set.

    Parameters
    ----------
    samples, reference : str, Path, ndarray, Tensor, ImageStream or Measured
        See :func:`free.evaluation.image_stream.open_images`; a set that serves several times is
        measured once with :func:`free.evaluation.measure`, or read from a file of
        ``keep_reference``. An archive's own statistics of FID are used with Inception, as ADM's
        evaluator does.
    features : str or FeatureNetwork
        See :func:`free.evaluation.feature_networks.load_network`.
    labels : sequence of int [n], or "archive", optional
        What the samples were asked to show, for ``accuracy``; "archive" takes ``arr_1``.
    neighbours : int
        k of precision and recall.
    resamples : int
        For the intervals of distances and scores, over the samples, the reference held fixed; 0 for
        none.
    seed : int
        Of the resampling.
    batch_size : int
        Images that go through the network together.
    device : torch.device or str
        Of the network and the figures.
    keep_reference : str or Path, optional
        A ``.safetensors`` file to write the measured reference to, for further calls.
    progress : bool
        Show bars.

    Returns
    -------
    Quality

    Raises
    ------
    ValueError
        If an argument cannot be used: too few images for a covariance, sizes that differ, ...
    ImportError
        If the network's weights are in a package that is not installed.
    FloatingPointError
        If the network returns NaN or infinity.
    """
    if not isinstance(resamples, int) or (resamples != 0 and resamples < 2):
        raise ValueError(f"resamples must be 0 or from 2 on, got {resamples!r}")
    if not isinstance(seed, int) or not 0 <= seed < 2**63:
        raise ValueError(f"seed must be an integer from 0 to 2^63 - 1, got {seed!r}")
    ours, theirs, classes = measure_pair(
        samples,
        reference,
        features,
        labels,
        neighbours,
        batch_size=batch_size,
        device=device,
        keep_reference=keep_reference,
        progress=progress,
    )
    with tqdm(desc="figures", unit="step", disable=not progress) as bar:
        figures = _distances(ours, theirs, resamples, seed, bar.update)
        if len(theirs):
            figures |= _shares(ours, theirs, neighbours, bar.update)
    if classes is not None:
        figures["accuracy"] = _accuracy(ours, classes)
    return Quality(
        samples=len(ours),
        reference=len(theirs),
        features=ours.network,
        is_inception=ours.is_inception,
        published=theirs.published is not None,
        neighbours=neighbours,
        resamples=resamples,
        figures=figures,
        left_out={
            name: measured.left_out
            for name, measured in (("samples", ours), ("reference", theirs))
            if measured.left_out
        },
    )


def named_as_asked(
    samples: Any,
    labels: Labels,
    features: str | FeatureNetwork = "auto",
    *,
    device: torch.device | str = "cpu",
) -> Figure:
    """Share of images whose class the network names as asked for; few images serve too.

    Parameters and errors are those of :func:`quality`.
    """
    if isinstance(samples, Measured):
        return _accuracy(samples, check_labels(labels, samples, samples.classes))
    images = open_images(samples, "samples")
    network = load_network(features, images.shape, device)
    classes = check_labels(labels, images, network.classes)
    return _accuracy(measure(images, network), classes)


def _accuracy(samples: Measured, classes: NDArray[np.int64]) -> Figure:
    if samples.probabilities is None:
        raise ValueError(
            f"features must have probabilities for accuracy, got {samples.network} without"
        )
    return _share(samples.probabilities.argmax(1).cpu() == torch.from_numpy(classes))


def _share(condition: Tensor) -> Figure:
    """How many images meet a condition, [n] bool."""
    share = condition.double().mean().item()
    return Figure(share, *wilson_interval(share, len(condition)))


def _shares(
    samples: Measured, reference: Measured, neighbours: int, tell: Callable[[int], object]
) -> dict[str, Figure]:
    ours, theirs = samples.pooled, reference.pooled.to(samples.pooled.device)
    near, far = (neighbour_radii(features, neighbours, tell) for features in (ours, theirs))
    inside, reached = coverage(ours, theirs, near, far, tell)
    return {"precision": _share(inside), "recall": _share(reached)}


def _distances(
    samples: Measured,
    reference: Measured,
    resamples: int,
    seed: int,
    tell: Callable[[int], object],
) -> dict[str, Figure]:
    """Distances and the score, and how they spread over resampled sets."""
    values: dict[str, float] = {}
    again: dict[str, Callable[[Tensor], float]] = {}
    for name, ours, theirs, published in (
        ("frechet", samples.pooled, reference.pooled, reference.published),
        ("spatial_frechet", samples.spatial, reference.spatial, reference.published_spatial),
    ):
        target = published or (None if theirs is None else gaussian(theirs))
        if ours is None or target is None:
            continue
        target = Gaussian(*(part.to(ours.device) for part in target))
        values[name] = frechet_distance(gaussian(ours), target)
        again[name] = _resampled_distance(ours, target)
    if (probabilities := samples.probabilities) is not None:
        values["score"] = inception_score(probabilities)
        again["score"] = lambda counts: inception_score(
            probabilities, counts.to(probabilities.device)
        )
    if not resamples:
        return {name: Figure(value) for name, value in values.items()}
    errors = standard_errors(again, len(samples), resamples, seed, tell)
    floors = {"score": 1.0}
    return {
        name: Figure(
            value,
            max(value - QUANTILE * errors[name], floors.get(name, 0.0)),
            value + QUANTILE * errors[name],
        )
        for name, value in values.items()
    }


def _resampled_distance(features: Tensor, target: Gaussian) -> Callable[[Tensor], float]:
    """The Frechet distance as a function of how often each image counts.

    By the eigenvalues of ``F^T S F``, quicker than singular values and exact enough for a spread.
    """
    factor = covariance_factor(target.covariance)

    def distance(counts: Tensor) -> float:
        ours = gaussian(features, counts.to(features.device))
        shared = torch.linalg.eigvalsh(factor.T @ ours.covariance @ factor).clamp(min=0).sqrt()
        spread = ours.covariance.trace() + target.covariance.trace() - 2 * shared.sum()
        return float((ours.mean - target.mean).square().sum() + spread)

    return distance
