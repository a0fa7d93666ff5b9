"""Two sets to compare: what can be wrong is said before a network runs for hours."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from free.arguments import as_integer
from free.evaluation.feature_networks import load_network
from free.evaluation.features import FeatureNetwork
from free.evaluation.image_stream import ImageStream, open_images
from free.evaluation.measured import Measured, measure, read_measured, write_measured
from free.files import check_writable

Labels = Sequence[int] | NDArray[np.int64] | Tensor | str


def measure_pair(
    samples: Any,
    reference: Any,
    features: str | FeatureNetwork,
    labels: Labels | None,
    neighbours: int,
    *,
    batch_size: int,
    device: torch.device | str,
    keep_reference: str | Path | None,
    progress: bool,
) -> tuple[Measured, Measured, NDArray[np.int64] | None]:
    """Samples, reference and the labels asked for; see :func:`free.evaluation.quality`."""
    ours, theirs = _open(samples, "samples", device), _open(reference, "reference", device)
    if not ours.shape:
        raise ValueError(f"samples must have arr_0, the images, got {ours.name}")
    if theirs.shape and theirs.shape != ours.shape:
        raise ValueError(
            "samples and reference must be of one size [H, W, C], "
            f"got {list(ours.shape)} and {list(theirs.shape)}"
        )
    if keep_reference is not None and Path(keep_reference).suffix != ".safetensors":
        raise ValueError(f"keep_reference must end in .safetensors, got {str(keep_reference)!r}")
    if isinstance(ours, Measured) and isinstance(theirs, Measured):
        if ours.network != theirs.network:
            raise ValueError(
                "samples and reference must be measured by one network, "
                f"got {ours.network} and {theirs.network}"
            )
        _check_counts(ours, theirs, ours.pooled.shape[1], neighbours)
        classes = None if labels is None else check_labels(labels, ours, ours.classes)
        if keep_reference is not None:
            write_measured(theirs, keep_reference)
        return ours, theirs, classes
    network = load_network(features, ours.shape, device)
    _check_counts(ours, theirs, network.dims, neighbours)
    classes = None if labels is None else check_labels(labels, ours, network.classes)
    if keep_reference is not None:
        check_writable(keep_reference, "keep_reference")
    theirs = measure(theirs, network, "reference", batch_size=batch_size, progress=progress)
    if keep_reference is not None:
        write_measured(theirs, keep_reference)
    ours = measure(ours, network, "samples", batch_size=batch_size, progress=progress)
    return ours, theirs, classes


def _open(source: Any, argument: str, device: torch.device | str) -> ImageStream | Measured:
    if isinstance(source, str | Path) and Path(source).suffix == ".safetensors":
        return read_measured(source, argument, device)
    return source if isinstance(source, Measured) else open_images(source, argument)


def _count(images: ImageStream | Measured) -> int:
    return len(images) if isinstance(images, Measured) else images.count


def _check_counts(
    samples: ImageStream | Measured,
    reference: ImageStream | Measured,
    dims: int,
    neighbours: int,
) -> None:
    counts = {"samples": _count(samples)}
    if reference.shape:  # else it is statistics alone
        counts["reference"] = _count(reference)
    for argument, count in counts.items():
        if count <= dims:
            raise ValueError(
                f"{argument} must be more than {dims} images for a covariance of {dims} features, "
                f"got {count}"
            )
    most = min(counts.values()) - 1
    as_integer(neighbours, f"neighbours must be from 1 to {most}", 1, most)


def check_labels(
    labels: Labels, samples: ImageStream | Measured, classes: int | None
) -> NDArray[np.int64]:
    """The classes asked for, [n] int64; ``classes`` is how many the network names, or None.

    A ValueError if it names none, or the labels are not n of its classes.
    """
    if classes is None:
        raise ValueError(
            "labels must come with features that name classes in their order: digits or "
            "efficientnet"
        )
    if isinstance(labels, str):
        if labels != "archive" or samples.labels is None:
            raise ValueError(
                "labels must be classes, or 'archive' for samples with arr_1, "
                f"got {labels!r} for {samples.name}"
            )
        labels = samples.labels
    values = np.asarray(labels)
    if values.shape != (_count(samples),) or values.dtype.kind not in "iu":
        raise ValueError(
            f"labels must be {_count(samples)} integers, one for each of the samples, "
            f"got {values.dtype} of shape {list(values.shape)}"
        )
    if values.min() < 0 or values.max() >= classes:
        raise ValueError(f"labels must be in 0..{classes - 1}, got {values.min()}..{values.max()}")
    return values.astype(np.int64)
