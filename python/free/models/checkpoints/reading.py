"""From a checkpoint to a network: every key checked, one tensor at a time."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from free.devices import find_device
from free.models.checkpoints.configs import with_constants
from free.models.checkpoints.layout import Origin
from free.models.checkpoints.positions import fixed_table, is_fixed
from free.models.checkpoints.source import Source, locate, open_source
from free.models.checkpoints.tensors import StoredTensor
from free.models.config import DiTConfig

__all__ = ["check_keys", "origins", "read_drafter", "read_teacher"]

Network = TypeVar("Network", bound=nn.Module)
_LISTED = 8  # keys of one kind in a message


def read_teacher(
    network: Callable[[DiTConfig], Network],
    source: str | Path,
    *,
    dtype: torch.dtype | None = None,
    device: torch.device | str = "cpu",
    constants: str | None = None,
    heads: int | None = None,
    image_size: int | None = None,
) -> Network:
    """Load a ``network``, DiT's class; see :meth:`free.DiT.from_pretrained`."""
    opened = open_source(locate(source), "teacher", heads, image_size)
    config = with_constants(opened.config, constants, opened.format)
    return _read(lambda: network(config), dataclasses.replace(opened, config=config), dtype, device)


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
    opened = open_source(locate(source, argument), "drafter")
    made = _read(lambda: network(opened.config, **opened.options), opened, dtype, device)
    return made, opened.sampling


def origins(source: Source, own: Mapping[str, Tensor]) -> dict[str, Origin]:
    """Where the checkpoint keeps each of the weights ``own``.

    A position table may be missing: it is computed then.
    """
    found = {name: source.layout(name, source.config.depth) for name in own}
    if "pos_embed" in found and "pos_embed" not in source.tensors:
        # Our own format always has it.
        found["pos_embed"] = Origin(("pos_embed",) if source.format == "free" else ())
    return found


def check_keys(
    found: Mapping[str, Origin],
    own: Mapping[str, Tensor],
    tensors: Mapping[str, StoredTensor],
    path: Path,
) -> None:
    """Compare the names and shapes of a checkpoint's tensors with those expected.

    Raises
    ------
    ValueError
        Listing what is missing, unexpected, of another shape, or not floating-point.
    """
    expected: dict[str, list[int]] = {}
    for name, origin in found.items():
        first, *others = own[name].shape
        for key in origin.parts + origin.copies:
            expected[key] = [first // len(origin.parts), *others]
    missing = sorted(expected.keys() - tensors.keys())
    unexpected = sorted(tensors.keys() - expected.keys())
    common = sorted(expected.keys() & tensors.keys())
    problems = [
        *_listed([f"missing {name}" for name in missing]),
        *_listed([f"unexpected {name}" for name in unexpected]),
        *_listed(
            [
                f"{name} has shape {list(tensors[name].shape)}, expected {expected[name]}"
                for name in common
                if list(tensors[name].shape) != expected[name]
            ]
        ),
        *_listed(
            [
                f"{name} holds {tensors[name].dtype}, expected floating-point values"
                for name in common
                if not tensors[name].dtype.is_floating_point
            ]
        ),
    ]
    if problems:
        raise ValueError(f"weights {path} do not fit the architecture: " + "; ".join(problems))


def _listed(problems: list[str]) -> list[str]:
    rest = len(problems) - _LISTED
    return [*problems[:_LISTED], *([f"and {rest} more like this"] if rest > 0 else [])]


def _read(
    make: Callable[[], Network],
    source: Source,
    dtype: torch.dtype | None,
    device: torch.device | str,
) -> Network:
    device = find_device(device)
    dtype = torch.float32 if dtype is None else dtype
    if not isinstance(dtype, torch.dtype) or not dtype.is_floating_point:
        raise ValueError(f"dtype must be a floating-point torch.dtype or None, got {dtype!r}")
    with torch.device("meta"):
        network = make()
    own = network.state_dict()
    found = origins(source, own)
    check_keys(found, own, source.tensors, source.path)

    state = {}
    for name, (parts, copies) in found.items():
        for copy in copies:
            if not source.tensors[copy].equals(source.tensors[parts[0]]):
                raise ValueError(
                    f"copies of {name} in {source.path} must agree, got {copy} unlike {parts[0]}"
                )
        if parts:
            state[name] = torch.empty(own[name].shape, dtype=dtype, device=device)
            for part, rows in zip(parts, state[name].chunk(len(parts)), strict=True):
                source.tensors[part].copy_into(rows)
    network.load_state_dict(state, strict=False, assign=True)
    # Tables that are in no file.
    network.t_embedder.reset_frequencies(device)  # type: ignore[operator, union-attr]
    table = network.pos_embed
    if table.is_meta or _was_rounded(source, table):  # type: ignore[arg-type]
        network.pos_embed = fixed_table(source.config).to(device=device, dtype=dtype)
    return network.eval().requires_grad_(False)


def _was_rounded(source: Source, table: Tensor) -> bool:
    """Whether a fixed table lost digits on disk, as it does not in formats that leave it out."""
    stored = source.tensors["pos_embed"].dtype
    lost = torch.finfo(stored).eps > torch.finfo(table.dtype).eps
    return lost and is_fixed(table, source.config)
