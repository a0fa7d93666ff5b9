"""What a source is: where its tensors, its configuration and its layout are found."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from free.models.checkpoints import hub
from free.models.checkpoints.configs import Description, read_config, with_constants
from free.models.checkpoints.layout import (
    Layout,
    diffusers_layout,
    drafter_layout,
    infer_config,
    own_layout,
)
from free.models.checkpoints.tensors import StoredTensor, open_file, open_index

_ASSETS = Path(__file__).resolve().parents[2] / "assets"
#: Bundles that come with the package.
EMBEDDED = ("mnist",)
#: The original's state dict in a folder of its own.
ORIGINAL_FILE = "model.pt"

_WEIGHTS = {
    "free": ("model.safetensors",),
    "diffusers": tuple(
        f"diffusion_pytorch_model.{suffix}"
        for suffix in ("safetensors", "safetensors.index.json", "bin", "bin.index.json")
    ),
}


@dataclass(frozen=True, kw_only=True)
class Source(Description):
    """An opened checkpoint, no weight read; ``path`` is that of the weights, or their index."""

    path: Path
    tensors: Mapping[str, StoredTensor] = field(repr=False)
    layout: Layout = field(repr=False)


def locate(source: str | Path, argument: str = "source") -> Path:
    """Find the file or folder that a name stands for: an embedded model, a path, or a hub id.

    Raises ValueError, which names ``argument``, if it is none, or a hub id that cannot be reached;
    ImportError if it can only be a hub id and ``huggingface_hub`` is not installed.
    """
    if str(source) in EMBEDDED:
        return _ASSETS / str(source)
    path = Path(source)
    if path.exists():
        return path
    if isinstance(source, str) and hub.is_hub_id(source):
        return hub.download(source, argument)
    raise ValueError(
        f"{argument} must be a checkpoint's file or folder, a hub id (owner/name), or one of "
        f"{', '.join(EMBEDDED)}, got {str(source)!r}, which does not exist"
    )


def bundled_drafter(path: Path) -> Path | None:
    """The drafter's folder of a bundle, if ``path`` is one and has it."""
    folder = path / "drafter"
    return folder if (folder / "config.json").is_file() else None


def open_source(
    path: Path, kind: str, heads: int | None = None, image_size: int | None = None
) -> Source:
    """Open a checkpoint, of whatever format.

    ``kind`` is what it must be, ``"teacher"``, ``"drafter"`` or ``"any"``. Of a folder with several
    parts it decides which is meant; with ``"any"`` that is the teacher. ``heads`` and
    ``image_size`` are needed where the checkpoint does not tell.

    Raises ValueError if it is of another kind, or missing, damaged, or no DiT's.
    """
    described = (path.parent / "config.json").is_file()
    if path.is_dir():
        checkpoint = _open_folder(_part(path, kind), heads, image_size)
    elif described and path.name in _WEIGHTS["free"] + _WEIGHTS["diffusers"]:
        checkpoint = _open_folder(path.parent, heads, image_size)
    else:
        checkpoint = _open_single(path, heads, image_size)
    if kind not in (checkpoint.kind, "any"):
        raise ValueError(f"source must be a {kind}, got {path} with a {checkpoint.kind}")
    if heads not in (None, checkpoint.config.heads):
        raise ValueError(f"heads must be the {checkpoint.config.heads} of {path}, got {heads}")
    if image_size not in (None, checkpoint.config.image_size):
        raise ValueError(
            f"image_size must be the {checkpoint.config.image_size} of {path}, got {image_size}"
        )
    return checkpoint


def _part(folder: Path, kind: str) -> Path:
    """The part of a bundle or of a diffusers folder that is meant."""
    for name in ("drafter",) if kind == "drafter" else ("teacher", "transformer"):
        if (folder / name).is_dir():
            return folder / name
    return folder


def _open_folder(folder: Path, heads: int | None, image_size: int | None) -> Source:
    if not (folder / "config.json").is_file():
        if (folder / ORIGINAL_FILE).is_file():
            return _open_single(folder / ORIGINAL_FILE, heads, image_size)
        if (folder / "manifest.json").is_file():
            raise ValueError(
                f"source must be a checkpoint, got {folder}, exported graphs or images in the "
                "making: free sample --model takes graphs, free.engines.load.load_engine opens them"
            )
        raise ValueError(
            f"source must be a folder with config.json, teacher/, transformer/ or {ORIGINAL_FILE}, "
            f"got {folder}: config.json is missing"
        )
    about = read_config(folder / "config.json")
    path = _first(folder, _WEIGHTS[about.format])
    tensors = open_index(path) if path.suffix == ".json" else open_file(path)[0]
    if about.kind == "drafter":
        layout = drafter_layout(tensors)
    else:
        layout = own_layout if about.format == "free" else diffusers_layout
    return Source(**vars(about), path=path, tensors=tensors, layout=layout)


def _first(folder: Path, names: tuple[str, ...]) -> Path:
    for name in names:
        if (folder / name).is_file():
            return folder / name
    raise ValueError(f"source must have weights, got {folder} without {' or '.join(names)}")


def _open_single(path: Path, heads: int | None, image_size: int | None) -> Source:
    """Open a file by itself; its tensors' names tell what it is."""
    tensors, arguments = open_file(path)
    if "fuse.weight" in tensors and "feature_head.weight" in tensors:
        raise ValueError(
            f"source must be a drafter's folder, got {path} without the config.json that "
            "belongs to it"
        )
    diffusers = any(name.startswith("transformer_blocks.") for name in tensors)
    layout = diffusers_layout if diffusers else own_layout
    config = infer_config(tensors, layout, path, heads, image_size)
    if diffusers:
        config = with_constants(config, "diffusers", "none")
    return Source(
        path=path,
        format="diffusers" if diffusers else "original" if arguments is None else "training",
        kind="teacher",
        config=config,
        training=None if arguments is None else _training_record(arguments),
        tensors=tensors,
        layout=layout,
    )


def _training_record(arguments: dict[str, Any]) -> dict[str, Any]:
    """The run's numbers and its model's name; not the paths of the machine it ran on."""
    return {
        name: value
        for name, value in arguments.items()
        if isinstance(value, int)
        or (isinstance(value, float) and math.isfinite(value))
        or (name == "model" and isinstance(value, str))
    }
