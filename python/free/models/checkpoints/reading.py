"""From a checkpoint to a network: every name and shape checked, one tensor at a time."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from free.devices import find_device
from free.models.checkpoints.configs import with_constants
from free.models.checkpoints.layout import Origin, block_embedders_layout
from free.models.checkpoints.positions import fixed_table, is_fixed
from free.models.checkpoints.source import Source, locate, open_source, teacher_file
from free.models.checkpoints.tensors import StoredTensor
from free.models.config import DiTConfig
from free.models.layers import TimestepEmbedder

Network = TypeVar("Network", bound=nn.Module)
_LISTED = 8  # names of one kind in a message


def read_teacher(
    network: Callable[[DiTConfig], Network],
    source: str | Path,
    *,
    dtype: torch.dtype | None = None,
    device: torch.device | str = "cpu",
    constants: str | None = None,
    heads: int | None = None,
    image_size: int | None = None,
    num_classes: int | None = None,
    family: str | None = None,
    variant: str | None = None,
) -> Network:
    """Load a ``network``, DiT's class; see :meth:`free.DiT.from_pretrained`."""
    path = locate(source, variant=variant)
    if variant is not None:
        path = teacher_file(path, variant)
    checkpoint = open_source(
        path,
        "teacher",
        heads=heads,
        image_size=image_size,
        num_classes=num_classes,
        family=family,
    )
    config = with_constants(checkpoint.config, constants, checkpoint.format)
    return build(network, dataclasses.replace(checkpoint, config=config), _copies(dtype, device))


def read_drafter(
    network: Callable[..., Network],
    source: str | Path,
    *,
    dtype: torch.dtype | None = None,
    device: torch.device | str = "cpu",
    argument: str = "source",
) -> tuple[Network, dict[str, Any]]:
    """Load a ``network``, DrafterNet's class, and the settings that it recommends.

    See :meth:`free.DrafterNet.from_pretrained`; ``argument`` is what the caller calls the source.
    """
    checkpoint = open_source(locate(source, argument), "drafter")
    drafter = build(partial(network, **checkpoint.options), checkpoint, _copies(dtype, device))
    return drafter, checkpoint.sampling


def build(
    make: Callable[[DiTConfig], Network],
    source: Source,
    join: Callable[[list[StoredTensor], torch.Size], Tensor],
) -> Network:
    """A network with the weights of a checkpoint, in evaluation mode, without gradients.

    ``make(config)`` returns the network; it is called where the default device is "meta".
    ``join(parts, shape)`` returns one weight, whose parts lie along the first axis. Where copies of
    a weight differ, each block gets its own. Raises ValueError if names or shapes differ
    (:func:`match`).
    """
    network, origins = _fit(make, source)
    if not _copies_agree(source, origins):
        own_embedders = dataclasses.replace(source.config, block_embedders=True)
        source = dataclasses.replace(source, config=own_embedders, layout=block_embedders_layout)
        network, origins = _fit(make, source)
    own, stored, state = network.state_dict(), source.tensors, {}
    for name, (parts, _) in origins.items():
        if parts:
            state[name] = join([stored[part] for part in parts], own[name].shape)
    network.load_state_dict(state, strict=False, assign=True)
    # Tables that are in no file, or were rounded in it.
    like = state["x_embedder.proj.weight"]
    for module in network.modules():
        if isinstance(module, TimestepEmbedder):
            module.reset_frequencies(like.device)
    table = network.pos_embed
    if table.is_meta or _was_rounded(source, table):  # type: ignore[arg-type]
        network.pos_embed = fixed_table(source.config).to(like)
    return network.eval().requires_grad_(False)


def _fit(make: Callable[[DiTConfig], Network], source: Source) -> tuple[Network, dict[str, Origin]]:
    with torch.device("meta"):
        network = make(source.config)
    return network, match(source, network)


def _copies_agree(source: Source, origins: Mapping[str, Origin]) -> bool:
    stored = source.tensors
    return all(
        stored[copy].equals(stored[origin.parts[0]])
        for origin in origins.values()
        for copy in origin.copies
    )


def match(source: Source, network: nn.Module) -> dict[str, Origin]:
    """Where a checkpoint keeps each weight of a network, which may be on "meta".

    A position table may be missing: it is computed then.

    Raises ValueError listing what is missing, unexpected, of another shape, or not floating-point.
    """
    own, tensors = network.state_dict(), source.tensors
    origins = {name: source.layout(name, source.config.depth) for name in own}
    if "pos_embed" in origins and "pos_embed" not in tensors:
        # Our own format always has it.
        origins["pos_embed"] = Origin(("pos_embed",) if source.format == "free" else ())
    expected: dict[str, list[int]] = {}
    for name, origin in origins.items():
        first, *others = own[name].shape
        for key in origin.parts + origin.copies:
            expected[key] = [first // len(origin.parts), *others]
    common = sorted(expected.keys() & tensors.keys())
    shapes = {name: list(tensors[name].shape) for name in common}
    problems = [
        *_listed(f"missing {name}" for name in sorted(expected.keys() - tensors.keys())),
        *_listed(f"unexpected {name}" for name in sorted(tensors.keys() - expected.keys())),
        *_listed(
            f"{name} has shape {shapes[name]}, expected {expected[name]}"
            for name in common
            if shapes[name] != expected[name]
        ),
        *_listed(
            f"{name} holds {tensors[name].dtype}, expected floating-point values"
            for name in common
            if not tensors[name].dtype.is_floating_point
        ),
    ]
    if problems:
        raise ValueError(
            f"weights {source.path} do not fit the architecture: {'; '.join(problems)}"
        )
    return origins


def _listed(problems: Iterator[str]) -> list[str]:
    first, rest = list(itertools.islice(problems, _LISTED)), sum(1 for _ in problems)
    return [*first, f"and {rest} more like this"] if rest else first


def _copies(
    dtype: torch.dtype | None, device: torch.device | str
) -> Callable[[list[StoredTensor], torch.Size], Tensor]:
    """Read weights into new memory, in one precision and on one device."""
    device = find_device(device)
    dtype = torch.float32 if dtype is None else dtype
    if not isinstance(dtype, torch.dtype) or not dtype.is_floating_point:
        raise ValueError(f"dtype must be a floating-point torch.dtype or None, got {dtype!r}")

    def join(parts: list[StoredTensor], shape: torch.Size) -> Tensor:
        weight = torch.empty(shape, dtype=dtype, device=device)
        for part, rows in zip(parts, weight.chunk(len(parts)), strict=True):
            part.copy_into(rows)
        return weight

    return join


def _was_rounded(source: Source, table: Tensor) -> bool:
    """Whether a fixed table lost digits on disk, as it does not in formats that leave it out."""
    stored = source.tensors["pos_embed"].dtype
    lost = torch.finfo(stored).eps > torch.finfo(table.dtype).eps
    return lost and is_fixed(table, source.config)
