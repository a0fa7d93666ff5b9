"""Checkpoints of the Hugging Face hub."""

from __future__ import annotations

import re
from pathlib import Path

__all__ = ["download", "is_hub_id"]

_FOLDERS = ("", "teacher/", "drafter/", "transformer/")
_DIFFUSERS = "diffusion_pytorch_model"
_SAFE = [
    folder + name
    for folder in _FOLDERS
    for name in (
        "config.json",
        "model.safetensors",
        f"{_DIFFUSERS}.safetensors",
        f"{_DIFFUSERS}.safetensors.index.json",
        f"{_DIFFUSERS}-*-of-*.safetensors",
    )
]
_PICKLED = [
    folder + name
    for folder in ("", "transformer/")
    for name in (
        "config.json",
        f"{_DIFFUSERS}.bin",
        f"{_DIFFUSERS}.bin.index.json",
        f"{_DIFFUSERS}-*-of-*.bin",
    )
]


def is_hub_id(name: str) -> bool:
    """Whether a name has the form ``owner/name``."""
    return re.fullmatch(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", name) is not None


def download(name: str, argument: str) -> Path:
    """Bring the weights of a repository here, or find them in the hub's cache.

    Only weights and their configurations are fetched; pickled ones where there is no safetensors.

    Parameters
    ----------
    name : str
        ``owner/name``.
    argument : str
        What the caller calls it.

    Returns
    -------
    Path
        The folder.

    Raises
    ------
    ImportError
        If ``huggingface_hub`` is not installed.
    ValueError
        If there is no such repository, or no way to it.
    """
    try:
        from huggingface_hub import snapshot_download
    except ImportError as error:
        raise ImportError(
            f"{argument} {name!r} is no file or folder here; as a hub id it needs "
            "huggingface_hub: pip install 'free-dit[diffusers]'"
        ) from error
    try:
        folder = Path(snapshot_download(name, allow_patterns=_SAFE))
        if not any(folder.rglob("*.safetensors")):
            folder = Path(snapshot_download(name, allow_patterns=_PICKLED))
    except Exception as error:  # of the hub, of the connection under it, of the cache
        reason = str(error).strip().splitlines() or [repr(error)]
        raise ValueError(
            f"{argument} must be a file or folder, or a hub id that can be reached, "
            f"got {name!r}: {type(error).__name__}: {reason[0]}"
        ) from error
    return folder
