"""Measured sets in files: a reference that took hours serves again in seconds."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from free.evaluation.measured import Measured
from free.evaluation.statistics import Gaussian
from free.files import write_atomic
from free.version import __version__

__all__ = ["read_measured", "write_measured"]

_FEATURES = ("pooled", "spatial", "probabilities")
_GAUSSIANS = ("published", "published_spatial")


def write_measured(measured: Measured, path: str | Path) -> None:
    """Write a measured set as safetensors, atomically."""
    tensors: dict[str, Tensor] = {}
    for name in _FEATURES:
        if (value := getattr(measured, name)) is not None:
            tensors[name] = value.cpu().contiguous()
    for name in _GAUSSIANS:
        if (pair := getattr(measured, name)) is not None:
            tensors[f"{name}.mean"], tensors[f"{name}.covariance"] = pair
    if measured.labels is not None:
        tensors["labels"] = torch.from_numpy(measured.labels)
    about = {
        "free": __version__,
        "name": measured.name,
        "network": measured.network,
        "is_inception": measured.is_inception,
        "classes": measured.classes,
        "shape": measured.shape,
    }
    note = {"measured": json.dumps(about)}
    write_atomic(path, lambda temporary: save_file(tensors, temporary, note))


def read_measured(path: str | Path, argument: str, device: torch.device | str = "cpu") -> Measured:
    """Read what :func:`write_measured` wrote.

    Raises
    ------
    ValueError
        If it is no such file, or of another version of free, whose networks may be others.
    """
    try:
        with safe_open(path, framework="pt") as file:
            about: dict[str, Any] = json.loads((file.metadata() or {})["measured"])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        version = about.pop("free")
        about["shape"] = tuple(about["shape"])
        for name in _FEATURES:
            if name in tensors:
                about[name] = tensors[name].to(device)
        for name in _GAUSSIANS:
            if f"{name}.mean" in tensors:
                about[name] = Gaussian(tensors[f"{name}.mean"], tensors[f"{name}.covariance"])
        if "labels" in tensors:
            about["labels"] = tensors["labels"].numpy()
        found = Measured(**about)
    except (OSError, SafetensorError, KeyError, TypeError, AttributeError, ValueError) as error:
        raise ValueError(
            f"{argument} must be a file of --keep-reference, got {path}: {error}"
        ) from error
    if version != __version__:
        raise ValueError(
            f"{argument} must be measured by this version of free, {__version__}, "
            f"got {path} of {version}: measure it again"
        )
    return found
