"""Checkpoints of the Hugging Face hub."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

#: Where a network's repository has its parts.
_NETWORKS = ("", "teacher/", "drafter/", "transformer/")
_DIFFUSERS = "diffusion_pytorch_model"
#: What a pipeline's repository says of itself.
_PIPELINE = ("model_index.json", "scheduler/scheduler_config.json")


def is_hub_id(name: str) -> bool:
    """Whether a name has the form ``owner/name``."""
    return re.fullmatch(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", name) is not None


def download(
    name: str,
    argument: str,
    folders: Sequence[str] = _NETWORKS,
    variant: str | None = None,
    access: Mapping[str, Any] | None = None,
) -> Path:
    """Bring the weights of a repository here, or find them in the hub's cache.

    Only weights and their configurations are fetched; pickled ones where there is no safetensors,
    and those of a ``variant`` if it is asked for or there are no others. ``name`` is
    ``owner/name``, which errors call ``argument``; ``folders`` are those of the repository to look
    in, each with a slash at its end, ``""`` the root; ``access`` are further arguments of
    ``huggingface_hub.snapshot_download``. Raises ImportError if ``huggingface_hub`` is not
    installed, ValueError if there is no such repository, or no way to it.
    """
    try:
        from huggingface_hub import snapshot_download
    except ImportError as error:
        raise ImportError(
            f"{argument} {name!r} is no file or folder here; as a hub id it needs "
            "huggingface_hub: pip install 'free-dit[diffusers]'"
        ) from error
    asked = [(variant, "safetensors"), (variant, "bin")]
    try:
        for middle, end in asked if variant else [*asked, ("*", "safetensors"), ("*", "bin")]:
            weights = [part + file for part in folders for file in _weights(middle, end)]
            others = [part + "config.json" for part in folders]
            path = Path(
                snapshot_download(
                    name, allow_patterns=[*weights, *others, *_PIPELINE], **(access or {})
                )
            )
            if any(any(path.glob(file)) for file in weights):
                break
    except Exception as error:  # of the hub, of the connection under it, of the cache
        reason = str(error).strip().splitlines() or [repr(error)]
        raise ValueError(
            f"{argument} must be a file or folder, or a hub id that can be reached, "
            f"got {name!r}: {type(error).__name__}: {reason[0]}"
        ) from error
    return path


def _weights(variant: str | None, end: str) -> list[str]:
    """Names of files of weights, with ``*`` for what may be anything."""
    middle = f".{variant}" if variant else ""
    names = [
        f"{_DIFFUSERS}{middle}.{end}",
        f"{_DIFFUSERS}.{end}.index{middle}.json",
        f"{_DIFFUSERS}{middle}-*-of-*.{end}",
        f"{_DIFFUSERS}-*-of-*{middle}.{end}",  # older versions of diffusers
    ]
    return ["model.safetensors", *names] if end == "safetensors" and not variant else names
