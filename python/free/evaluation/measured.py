"""A set of images as a feature network sees it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor
from tqdm import tqdm

from free.arguments import as_integer
from free.evaluation.features import FeatureNetwork, check_images
from free.evaluation.image_stream import ImageStream, open_images
from free.evaluation.statistics import Gaussian
from free.files import check_regular, parse_json, shown, write_atomic
from free.images.image_files import describe_left_out
from free.version import __version__

_FEATURES = ("pooled", "spatial", "probabilities")
_GAUSSIANS = ("published", "published_spatial")
#: What a file says beside its tensors.
_KINDS: dict[str, type | tuple[type, ...]] = {
    "name": str,
    "network": str,
    "is_inception": bool,
    "classes": (int, type(None)),
    "left_out": str,
}


@dataclass(frozen=True)
class Measured:
    """Features of a set; of its images nothing is kept.

    Attributes
    ----------
    name, network : str
        Of the set, for messages, and of the feature network.
    is_inception, classes
        See :class:`free.evaluation.features.FeatureNetwork`.
    shape : tuple of int
        (H, W, C) of the images; () where there were none.
    pooled : Tensor, shape [n, D], float32
        n is 0 for published statistics without images.
    spatial, probabilities : Tensor, shapes [n, S] and [n, classes], float32, or None
    labels : ndarray, shape [n], int64, or None
    published, published_spatial : Gaussian or None
        Statistics of FID and sFID that an archive brought along, of more images than it has.
    left_out : str
        How many files of a folder are no images, and of which kinds; "" if all are.
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
    left_out: str = ""

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
        See :func:`free.evaluation.image_stream.open_images`. What is measured already is returned.
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
    batch_size = as_integer(batch_size, "batch_size must be an integer >= 1", 1)
    images = open_images(source, argument)
    if not network.is_inception and not images.count:
        raise ValueError(
            f"{argument} must have arr_0, the images, for {network.name} features, got "
            f"{images.name}, whose statistics are those of FID: --features inception:PATH"
        )
    statistics = (images.statistics or {}) if network.is_inception else {}
    published = _gaussian(statistics, "mu", "sigma", argument, network.dims)
    published_spatial = _gaussian(statistics, "mu_s", "sigma_s", argument)
    features = _run(images, network, argument, batch_size, progress)
    return Measured(
        images.name,
        network.name,
        network.is_inception,
        network.classes,
        images.shape,
        features.get("pooled", torch.empty(0, network.dims, dtype=torch.float32, device="cpu")),
        features.get("spatial"),
        features.get("probabilities"),
        images.labels,
        published,
        published_spatial,
        describe_left_out(images.left_out),
    )


def _run(
    images: ImageStream, network: FeatureNetwork, argument: str, batch_size: int, progress: bool
) -> dict[str, Tensor]:
    """The features, each in one tensor that is there from the first batch on."""
    features: dict[str, Tensor] = {}
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
                if name not in features:
                    shape = (images.count, *part.shape[1:])
                    features[name] = part.new_empty(shape, dtype=torch.float32)
                features[name][start:stop] = part
            start = stop
            bar.update(len(chunk))
    if start != images.count:
        raise ValueError(f"{argument} must have {images.count} images, got {start}")
    return features


def _gaussian(
    statistics: Mapping[str, NDArray[Any]],
    mean: str,
    covariance: str,
    argument: str,
    dims: int | None = None,
) -> Gaussian | None:
    """Statistics by their names in an archive, checked; None where it has none."""
    if not {mean, covariance} <= statistics.keys():
        return None
    pair = Gaussian(
        torch.from_numpy(statistics[mean].astype(np.float64)),
        torch.from_numpy(statistics[covariance].astype(np.float64)),
    )
    if dims is None:
        dims = pair.mean.numel()
    if pair.mean.shape != (dims,) or pair.covariance.shape != (dims, dims):
        raise ValueError(
            f"{argument} must have {mean} of shape [{dims}] and {covariance} of shape "
            f"[{dims}, {dims}], got {list(pair.mean.shape)} and {list(pair.covariance.shape)}"
        )
    return pair


def write_measured(measured: Measured, path: str | Path) -> None:
    """Write a measured set as safetensors, atomically."""
    values = {name: getattr(measured, name) for name in _FEATURES}
    tensors = {name: x.cpu().contiguous() for name, x in values.items() if x is not None}
    for name in _GAUSSIANS:
        if (pair := getattr(measured, name)) is not None:
            tensors[f"{name}.mean"], tensors[f"{name}.covariance"] = pair
    if measured.labels is not None:
        tensors["labels"] = torch.from_numpy(measured.labels)
    names = ("name", "network", "is_inception", "classes", "shape", "left_out")
    about = {"free": __version__} | {name: getattr(measured, name) for name in names}
    note = {"measured": json.dumps(about)}
    write_atomic(path, lambda temporary: save_file(tensors, temporary, note))


def read_measured(path: str | Path, argument: str, device: torch.device | str = "cpu") -> Measured:
    """Read what :func:`write_measured` wrote.

    A ValueError if it is no such file, or of another version of free, whose networks may be others.
    """
    try:
        check_regular(path)
        with safe_open(path, framework="pt") as file:
            about: dict[str, Any] = parse_json((file.metadata() or {})["measured"])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        version = about.pop("free")
        about["shape"] = tuple(about["shape"])
        about |= {name: tensors[name].to(device) for name in _FEATURES if name in tensors}
        for name in _GAUSSIANS:
            if f"{name}.mean" in tensors:
                about[name] = Gaussian(tensors[f"{name}.mean"], tensors[f"{name}.covariance"])
        if "labels" in tensors:
            about["labels"] = tensors["labels"].numpy()
        measured = Measured(**about)
        for name, kinds in _KINDS.items():
            if not isinstance(getattr(measured, name), kinds):
                raise TypeError(f"{name} must not be {shown(getattr(measured, name))}")
        if measured.pooled.ndim != 2 or not all(type(side) is int for side in measured.shape):
            raise TypeError("pooled must be [n, D], and shape integers")
    except (OSError, SafetensorError, KeyError, TypeError, AttributeError, ValueError) as error:
        raise ValueError(
            f"{argument} must be a file of --keep-reference, got {path}: {shown(error)}"
        ) from error
    if version != __version__:
        raise ValueError(
            f"{argument} must be measured by this version of free, {__version__}, "
            f"got {path} of {shown(version)}: measure it again"
        )
    return measured
