"""What a source is: where its tensors, its configuration and its layout are found."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from free.models.checkpoints import hub
from free.models.checkpoints.configs import Description, read_config, with_constants
from free.models.checkpoints.families import split_projectors, told_family
from free.models.checkpoints.layout import (
    Layout,
    count_blocks,
    diffusers_layout,
    drafter_layout,
    infer_config,
    own_layout,
    plain_names,
)
from free.models.checkpoints.tensors import StoredTensor, open_file, open_index
from free.models.config import FAMILIES, check_size

_ASSETS = Path(__file__).resolve().parents[2] / "assets"
#: Bundles that come with the package.
EMBEDDED = ("mnist", "emoji")
#: The original's state dict in a folder of its own.
ORIGINAL_FILE = "model.pt"

#: What names of weights begin with, and how they end, the best first; ``{}`` is a variant.
_STEMS = {"free": "model", "diffusers": "diffusion_pytorch_model"}
_ENDS = {
    "free": ("{}.safetensors",),
    "diffusers": (
        "{}.safetensors",
        ".safetensors.index{}.json",
        "{}.bin",
        ".bin.index{}.json",
    ),
}


@dataclass(frozen=True, kw_only=True)
class Source(Description):
    """An opened checkpoint, no weight read; ``path`` is that of the weights, or their index.

    ``ignored`` are tensors that are no part of the network.
    """

    path: Path
    tensors: Mapping[str, StoredTensor] = field(repr=False)
    layout: Layout = field(repr=False)
    ignored: Mapping[str, StoredTensor] = field(default_factory=dict, repr=False)


def locate(
    source: str | Path,
    argument: str = "source",
    *,
    variant: str | None = None,
    access: Mapping[str, Any] | None = None,
) -> Path:
    """Find the file or folder that a name stands for: an embedded model, a path, or a hub id.

    For ``variant`` and ``access`` see :func:`free.models.checkpoints.hub.download`.

    Raises ValueError, which names ``argument``, if it is none, or a hub id that cannot be reached;
    ImportError if it can only be a hub id and ``huggingface_hub`` is not installed.
    """
    if str(source) in EMBEDDED:
        return _ASSETS / str(source)
    path = Path(source)
    if path.exists():
        return path
    if isinstance(source, str) and hub.is_hub_id(source):
        return hub.download(source, argument, variant=variant, access=access)
    raise ValueError(
        f"{argument} must be a checkpoint's file or folder, a hub id (owner/name), or one of "
        f"{', '.join(EMBEDDED)}, got {str(source)!r}, which does not exist"
    )


def bundled_drafter(path: Path) -> Path | None:
    """The drafter's folder of a bundle, if ``path`` is one and has it."""
    folder = path / "drafter"
    return folder if (folder / "config.json").is_file() else None


def open_source(
    path: Path,
    kind: str,
    *,
    heads: int | None = None,
    image_size: int | None = None,
    num_classes: int | None = None,
    family: str | None = None,
) -> Source:
    """Open a checkpoint, of whatever format.

    ``kind`` is what it must be, ``"teacher"``, ``"drafter"`` or ``"any"``. Of a folder with several
    parts it decides which is meant; with ``"any"`` that is the teacher. The others are needed where
    the checkpoint does not tell.

    Raises ValueError if it is of another kind, or missing, damaged, or no DiT's.
    """
    sizes = {"heads": heads, "image_size": image_size, "num_classes": num_classes}
    for name, size in sizes.items():
        if size is not None:
            check_size(name, size, 2**24)
    if family not in (None, *FAMILIES):
        raise ValueError(f"family must be one of {', '.join(FAMILIES)} or None, got {family!r}")
    wanted = {**sizes, "family": family}
    if path.is_dir():
        checkpoint = _open_folder(_part(path, kind), wanted)
    elif (path.parent / "config.json").is_file() and _is_weights(path.name):
        checkpoint = _open_described(path.parent, path)
    else:
        checkpoint = _open_single(path, wanted)
    if kind not in (checkpoint.kind, "any"):
        raise ValueError(f"source must be a {kind}, got {path} with a {checkpoint.kind}")
    for name, value in wanted.items():
        own = getattr(checkpoint.config, name)
        if value not in (None, own):
            raise ValueError(f"{name} must be the {own} of {path}, got {value}")
    return checkpoint


def _part(folder: Path, kind: str) -> Path:
    """The part of a bundle or of a diffusers folder that is meant."""
    for name in ("drafter",) if kind == "drafter" else ("teacher", "transformer"):
        if (folder / name).is_dir():
            return folder / name
    return folder


def _open_folder(folder: Path, wanted: dict[str, Any]) -> Source:
    if (folder / "config.json").is_file():
        return _open_described(folder, None)
    if (folder / ORIGINAL_FILE).is_file():
        return _open_single(folder / ORIGINAL_FILE, wanted)
    if (folder / "manifest.json").is_file():
        raise ValueError(
            f"source must be a checkpoint, got {folder}, exported graphs or images in the "
            "making: free sample --model takes graphs, free.engines.load.load_engine opens them"
        )
    raise ValueError(
        f"source must be a folder with config.json, teacher/, transformer/ or {ORIGINAL_FILE}, "
        f"got {folder}: config.json is missing"
    )


def _open_described(folder: Path, path: Path | None) -> Source:
    """Open weights that have a configuration, those of ``path`` or the folder's."""
    about = read_config(folder / "config.json")
    path = find_weights(folder, about.format) if path is None else path
    named = open_index(path) if path.suffix == ".json" else open_file(path).tensors
    tensors = plain_names(named, path)
    depth, blocks = about.options.get("depth", about.config.depth), count_blocks(tensors)
    if depth != blocks:  # before so many are built
        raise ValueError(
            f"weights {path} do not fit the architecture: {blocks} blocks, expected {depth}"
        )
    if about.kind == "drafter":
        layout = drafter_layout(tensors)
    else:
        layout = own_layout if about.format == "free" else diffusers_layout
    return Source(**vars(about), path=path, tensors=tensors, layout=layout)


def find_weights(folder: Path, form: str, variant: str | None = None) -> Path:
    """The weights of a folder in format ``form``, or their index.

    ``variant`` is what diffusers calls so, such as ``"fp16"``; see :func:`only_variant`. Raises
    ValueError if there are no weights, or only those of several variants.
    """
    if variant is None:
        variant = only_variant(folder) if form == "diffusers" else ""
    names = [_STEMS[form] + end.format(f".{variant}" if variant else "") for end in _ENDS[form]]
    for name in names:
        if (folder / name).is_file():
            return folder / name
    raise ValueError(f"source must have weights, got {folder} without {' or '.join(names)}")


def only_variant(folder: Path) -> str:
    """The variant of a diffusers folder's weights if it has no others; else "".

    Raises ValueError if there are several variants and nothing else.
    """
    found = {_variant(path.name, "diffusers") for path in folder.iterdir()} - {None}
    if "" in found or not found:
        return ""
    if len(found) > 1:
        raise ValueError(
            f"source must have weights of one variant, got {folder} with "
            f"{' and '.join(sorted(map(str, found)))}: name the file that is meant"
        )
    return str(found.pop())


def teacher_file(path: Path, variant: str | None) -> Path:
    """The file, or index, of the teacher's weights in a folder that describes them.

    Raises ValueError if there is none of this variant.
    """
    folder = _part(path, "teacher")
    if not (folder / "config.json").is_file():
        if variant is not None:
            raise ValueError(f"variant must be None for {path}, which has none, got {variant!r}")
        return path
    return find_weights(folder, read_config(folder / "config.json").format, variant)


def _variant(name: str, form: str) -> str | None:
    """The variant of a file of weights, "" for none; None for other files."""
    for end in _ENDS[form]:
        before, after = map(re.escape, end.split("{}"))
        match = re.fullmatch(rf"{_STEMS[form]}{before}(|\.\w+){after}", name)
        if match:
            return match[1].removeprefix(".")
    return None


def _is_weights(name: str) -> bool:
    return any(_variant(name, form) is not None for form in _STEMS)


def _open_single(path: Path, wanted: dict[str, Any]) -> Source:
    """Open a file by itself; its tensors' names tell what it is."""
    contents = open_file(path)
    tensors, ignored = split_projectors(plain_names(contents.tensors, path))
    arguments = contents.arguments
    if "fuse.weight" in tensors and "feature_head.weight" in tensors:
        raise ValueError(
            f"source must be a drafter's folder, got {path} without the config.json that "
            "belongs to it"
        )
    told = arguments.get("num_classes")
    if wanted["num_classes"] is None and told is not None:
        told = check_size(f"args.num_classes of {path}", told, 2**24)
        wanted = {**wanted, "num_classes": told}
    family = told_family(arguments, path) or wanted["family"] or ("repa" if ignored else None)
    wanted = {**wanted, "family": family}
    diffusers = any(name.startswith("transformer_blocks.") for name in tensors)
    layout = diffusers_layout if diffusers else own_layout
    config = infer_config(tensors, layout, path, **wanted)
    if diffusers:
        config = with_constants(config, "diffusers", "none")
    plain = "training" if contents.averaged else "original"
    return Source(
        path=path,
        format="diffusers" if diffusers else plain,
        kind="teacher",
        config=config,
        training=_training_record(arguments) or None,
        tensors=tensors,
        layout=layout,
        ignored=ignored,
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
