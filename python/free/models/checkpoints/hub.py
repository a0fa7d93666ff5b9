"""Checkpoints of the Hugging Face hub."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

#: Where a network's repository has its parts.
_NETWORKS = ("", "teacher/", "drafter/", "transformer/")
_DIFFUSERS = "diffusion_pytorch_model"
_SAFE = (
    "config.json",
    "model.safetensors",
    f"{_DIFFUSERS}.safetensors",
    f"{_DIFFUSERS}.safetensors.index.json",
    f"{_DIFFUSERS}-*-of-*.safetensors",
)
_PICKLED = (
    "config.json",
    f"{_DIFFUSERS}.bin",
    f"{_DIFFUSERS}.bin.index.json",
    f"{_DIFFUSERS}-*-of-*.bin",
)
#: What a pipeline's repository says of itself.
_PIPELINE = ("model_index.json", "scheduler/scheduler_config.json")


def is_hub_id(name: str) -> bool:
    """Whether a name has the form ``owner/name``."""
    return re.fullmatch(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", name) is not None


def download(name: str, argument: str, folders: Sequence[str] = _NETWORKS) -> Path:
    """Bring the weights of a repository here, or find them in the hub's cache.

    Only weights and their configurations are fetched; pickled ones where there is no safetensors.
    ``name`` is ``owner/name``, which errors call ``argument``; ``folders`` are those of the
    repository to look in, each with a slash at its end, ``""`` the root. Raises ImportError if
    ``huggingface_hub`` is not installed, ValueError if there is no such repository, or no way to
    it.
    """
    try:
        from huggingface_hub import snapshot_download
    except ImportError as error:
        raise ImportError(
            f"{argument} {name!r} is no file or folder here; as a hub id it needs "
            "huggingface_hub: pip install 'free-dit[diffusers]'"
        ) from error
    try:
        safe = [part + file for part in folders for file in _SAFE]
        path = Path(snapshot_download(name, allow_patterns=[*safe, *_PIPELINE]))
        if not any(any((path / part).glob("*.safetensors")) for part in folders):
            pickled = [part + file for part in folders for file in _PICKLED]
            path = Path(snapshot_download(name, allow_patterns=pickled))
    except Exception as error:  # of the hub, of the connection under it, of the cache
        reason = str(error).strip().splitlines() or [repr(error)]
        raise ValueError(
            f"{argument} must be a file or folder, or a hub id that can be reached, "
            f"got {name!r}: {type(error).__name__}: {reason[0]}"
        ) from error
    return path
