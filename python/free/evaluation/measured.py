"""A set of images as a feature network sees it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from free.evaluation.features import FeatureNetwork, check_images
from free.evaluation.images import ImageStream, open_images
from free.evaluation.statistics import Gaussian

__all__ = ["Measured", "measure"]


@dataclass(frozen=True)
class Measured:
    """Features of a set; of its images nothing is kept.

    Attributes
    ----------
    name : str
        Of the set, for messages.
    network : str
        Name of the feature network.
    is_inception : bool
    classes : int or None
        See :class:`free.evaluation.features.FeatureNetwork`.
    shape : tuple of int
        (H, W, C) of the images; () where there were none.
    pooled : Tensor, shape [n, D], float32
        n is 0 for published statistics without images.
    spatial : Tensor, shape [n, S], float32, or None
    probabilities : Tensor, shape [n, classes], float32, or None
    labels : ndarray, shape [n], int64, or None
    published : Gaussian or None
        Statistics of FID that an archive brought along, of more images than it has.
    published_spatial : Gaussian or None
        The same of sFID.
    """

    name: str
    network: str
    is_inception: bool
    classes: int | None
    shape: tuple[int, ...]
    pooled: Tensor
    spatial: Tensor | None = None
    probabilities: Tensor | None = None
    labels: NDArray[np.int64] | None = None
    published: Gaussian | None = None
    published_spatial: Gaussian | None = None

    def __len__(self) -> int:
        """How many images there were."""
        return len(self.pooled)


def measure(
    source: Any,
    network: FeatureNetwork,
    argument: str = "samples",
    *,
    batch_size: int = 64,
    progress: bool = False,
) -> Measured:
    """Run a feature network over a set of images, a batch at a time.

    Memory grows with the number of images by the features alone: 20 kB an image for Inception,
    1 kB for the digit classifier.

    Parameters
    ----------
    source : str, Path, ndarray, Tensor, ImageStream or Measured
        See :func:`free.evaluation.images.open_images`. What is measured already is returned.
    network : FeatureNetwork
    argument : str
        Name of the source in messages.
    batch_size : int
        Images at a time, >= 1.
    progress : bool
        Show a bar.

    Returns
    -------
    Measured

    Raises
    ------
    ValueError
        If the images cannot be used, or a ``Measured`` is of another network.
    FloatingPointError
        If the network returns NaN or infinity; names the images.
    """
    if isinstance(source, Measured):
        if source.network != network.name:
            raise ValueError(
                f"{argument} must be measured by {network.name}, got measured by {source.network}"
            )
        return source
    if isinstance(batch_size, bool) or not isinstance(batch_size, int) or batch_size < 1:
        raise ValueError(f"batch_size must be an integer >= 1, got {batch_size!r}")
    images = open_images(source, argument)
    published, published_spatial = _published(images, network, argument)
    made = _run(images, network, argument, batch_size, progress)
    return Measured(
        images.name,
        network.name,
        network.is_inception,
        network.classes,
        images.shape,
        made.get("pooled", torch.empty(0, network.dims)),
        made.get("spatial"),
        made.get("probabilities"),
        images.labels,
        published,
        published_spatial,
    )


def _run(
    images: ImageStream, network: FeatureNetwork, argument: str, batch_size: int, progress: bool
) -> dict[str, Tensor]:
    """The features, each in one tensor that is there from the first batch on."""
    made: dict[str, Tensor] = {}
    start = 0
    with tqdm(total=images.count, desc=argument, unit="image", disable=not progress) as bar:
        for chunk in images.chunks(batch_size):
            check_images(chunk, argument, images.shape)
            stop = start + len(chunk)
            if stop > images.count:
                raise ValueError(f"{argument} must have {images.count} images, got more")
            for name, part in network(chunk)._asdict().items():
                if part is None:
                    continue
                bad = (~part.flatten(1).isfinite().all(1)).nonzero().flatten()
                if len(bad):
                    raise FloatingPointError(
                        f"{network.name} must give finite features, got NaN or infinity for "
                        f"{argument}, images {(bad[:8] + start).tolist()}"
                    )
                if name not in made:
                    made[name] = part.new_empty(images.count, *part.shape[1:], dtype=torch.float32)
                made[name][start:stop] = part
            start = stop
            bar.update(len(chunk))
    if start != images.count:
        raise ValueError(f"{argument} must have {images.count} images, got {start}")
    return made


def _published(
    images: ImageStream, network: FeatureNetwork, argument: str
) -> tuple[Gaussian | None, Gaussian | None]:
    """Statistics of the archive, which are of Inception's features whatever the network here is."""
    if not network.is_inception and not images.count:
        raise ValueError(
            f"{argument} must have arr_0, the images, for {network.name} features, got "
            f"{images.name}, whose statistics are those of FID: --features inception:PATH"
        )
    if not network.is_inception or not images.statistics:
        return None, None
    found: list[Gaussian | None] = []
    for mean, covariance in (("mu", "sigma"), ("mu_s", "sigma_s")):
        if not {mean, covariance} <= images.statistics.keys():
            found.append(None)
            continue
        pair = Gaussian(
            torch.from_numpy(images.statistics[mean].astype(np.float64)),
            torch.from_numpy(images.statistics[covariance].astype(np.float64)),
        )
        dims = network.dims if mean == "mu" else pair.mean.numel()
        if pair.mean.shape != (dims,) or pair.covariance.shape != (dims, dims):
            raise ValueError(
                f"{argument} must have {mean} of shape [{dims}] and {covariance} of shape "
                f"[{dims}, {dims}], got {list(pair.mean.shape)} and {list(pair.covariance.shape)}"
            )
        found.append(pair)
    return found[0], found[1]
