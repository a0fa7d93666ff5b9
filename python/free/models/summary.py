"""What a checkpoint is, told from the headers of its files."""

from __future__ import annotations

import functools
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from free.models.checkpoints.configs import config_from_own, published_name
from free.models.checkpoints.reading import check_keys, origins
from free.models.checkpoints.source import locate, open_source
from free.models.config import DiTConfig
from free.models.dit import DiT
from free.models.drafter import DrafterNet

__all__ = ["FoundDrafter", "Summary", "drafters_beside", "inspect"]


@dataclass(frozen=True)
class Summary:
    """What a checkpoint is.

    Attributes
    ----------
    path : Path
        Of the weights, or their index.
    format : {"original", "training", "diffusers", "free"}
        ``"training"`` is the original's training checkpoint, of which the averaged weights count.
    kind : {"teacher", "drafter"}
    name : str or None
        Of the published size, such as ``"DiT-XL/2 at 256"``; of a drafter, of its teacher's.
    config : DiTConfig
        With the format's constants; of a drafter, its teacher's shape.
    parameters : int
        Values of the network's weights; the fixed position table is none.
    dtype : torch.dtype
        The narrowest that holds all the weights as stored.
    dtypes : tuple of torch.dtype
        All that are stored.
    bytes : int
        Of the tensors as stored.
    training : dict or None
        The training record.
    sampling : dict
        Settings that a drafter recommends.
    options : dict
        What a drafter is made with besides its teacher's ``config``; of a teacher nothing.
    """

    path: Path
    format: str
    kind: str
    name: str | None
    config: DiTConfig
    parameters: int
    dtype: torch.dtype
    dtypes: tuple[torch.dtype, ...]
    bytes: int
    training: dict[str, Any] | None
    sampling: dict[str, Any]
    options: dict[str, Any]


@dataclass(frozen=True)
class FoundDrafter:
    """A drafter found beside a teacher.

    Attributes
    ----------
    folder : Path
    misfit : str
        Why it does not fit; empty if it does.
    """

    folder: Path
    misfit: str


def inspect(
    source: str | Path,
    *,
    kind: str = "any",
    heads: int | None = None,
    image_size: int | None = None,
) -> Summary:
    """Describe a checkpoint without reading its weights.

    Parameters
    ----------
    source, heads, image_size
        As of :meth:`free.DiT.from_pretrained`; a drafter's folder will do too.
    kind : {"any", "teacher", "drafter"}
        What it must be; of a bundle, which part is meant (with ``"any"`` the teacher).

    Raises
    ------
    ValueError, ImportError
        As of :meth:`free.DiT.from_pretrained`, but that copies agree is not checked.
    """
    opened = open_source(locate(source), kind, heads, image_size)
    network: DiT | DrafterNet
    with torch.device("meta"):
        if opened.kind == "teacher":
            network = DiT(opened.config)
        else:
            network = DrafterNet(opened.config, **opened.options)
    own = network.state_dict()
    check_keys(origins(opened, own), own, opened.tensors, opened.path)
    stored = opened.tensors.values()
    dtypes = tuple(sorted({tensor.dtype for tensor in stored}, key=str))
    return Summary(
        opened.path,
        opened.format,
        opened.kind,
        published_name(opened.config),
        opened.config,
        sum(weight.numel() for weight in network.parameters()),
        functools.reduce(torch.promote_types, dtypes),
        dtypes,
        sum(torch.Size(tensor.shape).numel() * tensor.dtype.itemsize for tensor in stored),
        opened.training,
        opened.sampling,
        opened.options,
    )


def drafters_beside(summary: Summary) -> list[FoundDrafter]:
    """Drafters' folders in a teacher's folder or next to it, and whether they fit.

    Their configurations alone are read.
    """
    places = [summary.path.parent]
    if summary.format in ("free", "diffusers"):
        places.append(places[0].parent)
    found = []
    for path in sorted({path for place in places for path in place.glob("*/config.json")}):
        try:
            own = config_from_own(json.loads(path.read_text(encoding="utf-8")), path)
        except (OSError, ValueError, TypeError):
            continue  # something else lives there
        if own.kind == "drafter":
            found.append(FoundDrafter(path.parent, summary.config.misfit(own.config)))
    return found
