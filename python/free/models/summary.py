"""What a checkpoint is, told from the headers of its files: no weight is read."""

from __future__ import annotations

import functools
from dataclasses import dataclass, fields
from pathlib import Path

import torch

from free.models.checkpoints.configs import Description, published_name, read_config
from free.models.checkpoints.reading import match
from free.models.checkpoints.source import Source, locate, open_source
from free.models.dit import DiT
from free.models.drafter import DrafterNet


@dataclass(frozen=True, kw_only=True)
class Summary(Description):
    """What a checkpoint is.

    Attributes
    ----------
    path : Path
        Of the weights, or their index.
    name : str or None
        Of the published size, such as ``"DiT-XL/2 at 256"``; of a drafter, of its teacher's.
    parameters : int
        Values of the network's weights; the fixed position table is none.
    dtype : torch.dtype
        The narrowest that holds all the weights as stored.
    dtypes : tuple of torch.dtype
        All that are stored.
    bytes : int
        Of the tensors as stored.
    ignored : tuple of str
        What the file holds and sampling has no use for, in words.
    """

    path: Path
    name: str | None
    parameters: int
    dtype: torch.dtype
    dtypes: tuple[torch.dtype, ...]
    bytes: int
    ignored: tuple[str, ...] = ()


@dataclass(frozen=True)
class FoundDrafter:
    """A drafter found beside a teacher; ``misfit`` says why it does not fit, empty if it does."""

    folder: Path
    misfit: str


def inspect(
    source: str | Path,
    *,
    kind: str = "any",
    heads: int | None = None,
    image_size: int | None = None,
    num_classes: int | None = None,
    family: str | None = None,
) -> Summary:
    """Describe a checkpoint without reading its weights.

    Parameters
    ----------
    source, heads, image_size, num_classes, family
        See :meth:`free.DiT.from_pretrained`; a drafter's folder will do too.
    kind : {"any", "teacher", "drafter"}
        What it must be; of a bundle, which part is meant (with ``"any"`` the teacher).

    Raises
    ------
    ValueError, ImportError
        See :meth:`free.DiT.from_pretrained`. Whether the embedders of diffusers' blocks agree is
        not looked at: one of them is counted.
    """
    checkpoint = open_source(
        locate(source),
        kind,
        heads=heads,
        image_size=image_size,
        num_classes=num_classes,
        family=family,
    )
    network: DiT | DrafterNet
    with torch.device("meta"):
        if checkpoint.kind == "teacher":
            network = DiT(checkpoint.config)
        else:
            network = DrafterNet(checkpoint.config, **checkpoint.options)
    match(checkpoint, network)
    tensors = checkpoint.tensors.values()
    dtypes = tuple(sorted({tensor.dtype for tensor in tensors}, key=str))
    return Summary(
        **{part.name: getattr(checkpoint, part.name) for part in fields(Description)},
        path=checkpoint.path,
        name=published_name(checkpoint.config),
        parameters=sum(weight.numel() for weight in network.parameters()),
        dtype=functools.reduce(torch.promote_types, dtypes),
        dtypes=dtypes,
        bytes=sum(torch.Size(tensor.shape).numel() * tensor.dtype.itemsize for tensor in tensors),
        ignored=_ignored(checkpoint),
    )


def _ignored(checkpoint: Source) -> tuple[str, ...]:
    parts, config = [], checkpoint.config
    if checkpoint.ignored:
        values = sum(torch.Size(tensor.shape).numel() for tensor in checkpoint.ignored.values())
        parts.append(f"projectors.*, {values:,} values")
    if checkpoint.kind == "teacher" and config.learn_sigma and not config.learned_variance:
        parts.append("the second half of the output channels")
    return tuple(parts)


def drafters_beside(summary: Summary) -> list[FoundDrafter]:
    """Drafters' folders in a teacher's folder or next to it, and whether they fit.

    Their configurations alone are read.
    """
    places = [summary.path.parent]
    if summary.format in ("free", "diffusers"):
        places.append(places[0].parent)
    drafters = []
    for path in sorted({path for place in places for path in place.glob("*/config.json")}):
        try:
            about = read_config(path)
        except ValueError:
            continue  # something else lives there
        if about.kind == "drafter":
            drafters.append(FoundDrafter(path.parent, summary.config.misfit(about.config)))
    return drafters
