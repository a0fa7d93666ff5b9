"""Names of one network's weights in the formats, and its shape inferred from them."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

from free.models.checkpoints.tensors import StoredTensor
from free.models.config import FAMILIES, PUBLISHED_HEADS, DiTConfig
from free.models.wrappers import strip_wrappers


class Origin(NamedTuple):
    """Where a format keeps one of our weights.

    In ``parts`` along the first axis, none if the format does not keep it; a weight in one piece
    may have further ``copies``.
    """

    parts: tuple[str, ...]
    copies: tuple[str, ...] = ()


#: ``layout(name, depth)``: the origin of our weight ``name`` in a network of ``depth`` blocks.
Layout = Callable[[str, int], Origin]

#: The first layer of a network, in ours and in diffusers' names, after what comes before it.
_FIRST = r"(|.*\.)(?:x_embedder|pos_embed)\.proj\.weight"

_OUTSIDE = {
    "x_embedder.proj": "pos_embed.proj",
    "final_layer.adaLN_modulation.1": "proj_out_1",
    "final_layer.linear": "proj_out_2",
}
_CONDITIONING = {
    "t_embedder.mlp.0": "timestep_embedder.linear_1",
    "t_embedder.mlp.2": "timestep_embedder.linear_2",
    "y_embedder.embedding_table": "class_embedder.embedding_table",
}
_IN_BLOCK = {
    "adaLN_modulation.1": ("norm1.linear",),
    "attn.qkv": ("attn1.to_q", "attn1.to_k", "attn1.to_v"),
    "attn.proj": ("attn1.to_out.0",),
    "mlp.fc1": ("ff.net.0.proj",),
    "mlp.fc2": ("ff.net.2",),
}


def own_layout(name: str, depth: int) -> Origin:
    """Our own names, which are the original's."""
    return Origin((name,))


def plain_names(tensors: Mapping[str, StoredTensor], path: Path) -> dict[str, StoredTensor]:
    """Tensors by the names that they have in the network itself; ``path`` is for messages.

    What torch.compile and parallel training put into names is taken off, and what comes before all
    of them where the network was a part of something.

    Raises ValueError if there are several networks, or one tensor twice.
    """
    names = {name: strip_wrappers(name) for name in tensors}
    parts = (re.fullmatch(_FIRST, name) for name in names.values())
    prefixes = sorted({part[1] for part in parts if part})
    if len(prefixes) > 1:
        raise ValueError(
            f"source must hold one network, got {path} with weights named "
            f"{' and '.join(f'{prefix}*' for prefix in prefixes)}: save those that are meant"
        )
    prefix = prefixes[0] if prefixes else ""
    plain = {names[name].removeprefix(prefix): tensor for name, tensor in tensors.items()}
    if len(plain) < len(tensors):
        raise ValueError(f"source must hold each weight once, got {path} with some of them twice")
    return plain


def count_blocks(tensors: Mapping[str, StoredTensor]) -> int:
    """How many blocks there are weights of."""
    blocks = (re.match(r"(?:transformer_)?blocks\.(\d+)\.|(block)\.", name) for name in tensors)
    return len({block[0] for block in blocks if block})


def drafter_layout(tensors: Mapping[str, StoredTensor]) -> Layout:
    """Our drafters' names; the first drafters had a single block, which was called ``block``."""
    if not any(name.startswith("block.") for name in tensors):
        return own_layout
    return lambda name, depth: Origin((re.sub(r"^blocks\.0\.", "block.", name),))


def diffusers_layout(name: str, depth: int) -> Origin:
    """The names of ``diffusers.DiTTransformer2DModel``.

    Every block has a copy of the conditioning's weights; the position table is not kept.
    """
    first, *others = (_in_diffusers_block(name, block) for block in range(depth))
    return Origin((first,), tuple(others)) if first else block_embedders_layout(name, depth)


def block_embedders_layout(name: str, depth: int) -> Origin:
    """The names of diffusers' network whose blocks have conditioning of their own."""
    module, _, leaf = name.rpartition(".")
    if name == "pos_embed":
        return Origin(())
    if module in _OUTSIDE:
        return Origin((f"{_OUTSIDE[module]}.{leaf}",))
    if first := _in_diffusers_block(name, 0):
        return Origin((first,))
    if module.startswith("block_embedders."):
        _, block, inner = name.split(".", 2)
        return Origin((_in_diffusers_block(inner, int(block) + 1),))
    _, block, inner = module.split(".", 2)
    return Origin(tuple(f"transformer_blocks.{block}.{part}.{leaf}" for part in _IN_BLOCK[inner]))


def _in_diffusers_block(name: str, block: int) -> str:
    """Where a block of diffusers has a weight of the conditioning; "" for other weights."""
    module, _, leaf = name.rpartition(".")
    inner = _CONDITIONING.get(module)
    return f"transformer_blocks.{block}.norm1.emb.{inner}.{leaf}" if inner else ""


def infer_config(
    tensors: Mapping[str, StoredTensor],
    layout: Layout,
    path: Path,
    *,
    heads: int | None,
    image_size: int | None,
    num_classes: int | None,
    family: str | None,
) -> DiTConfig:
    """Read the architecture off the shapes of a checkpoint's tensors; ``path`` is for messages.

    ``heads`` and ``image_size`` are needed where the shapes do not tell: the number of heads is
    known for published widths only. ``num_classes`` says whether there is a null class; None means
    that there is. A ``family`` of None is DiT's.

    Raises ValueError if the tensors are not a DiT's, or what they do not tell is needed or
    contradicts.
    """
    depth = count_blocks(tensors)

    def shape(name: str, axes: int) -> tuple[int, ...]:
        parts = layout(name, depth).parts if depth else ()
        if not parts or any(part not in tensors for part in parts):
            raise ValueError(
                f"source must hold the weights of a DiT, got {path} without {name}"
                f"{f' ({parts[0]})' if parts and parts[0] != name else ''}; "
                f"it has {', '.join(list(tensors)[:6])} and so on"
            )
        dims = tensors[parts[0]].shape
        if len(dims) != axes:
            raise ValueError(f"{parts[0]} in {path} must have {axes} axes, got {list(dims)}")
        return dims

    hidden, channels, patch, _ = shape("x_embedder.proj.weight", 4)
    labels, _ = shape("y_embedder.embedding_table.weight", 2)
    inner, _ = shape("blocks.0.mlp.fc1.weight", 2)
    outputs, _ = shape("final_layer.linear.weight", 2)
    sets = outputs / max(1, patch * patch * channels)
    if sets not in (1, 2):
        raise ValueError(
            f"final_layer.linear.weight in {path} must have 1 or 2 rows for each of the "
            f"{patch * patch * channels} values of a patch, got {outputs}"
        )
    if num_classes is None and labels == 1:
        raise ValueError(
            f"num_classes must be given for the label table of one row in {path}: 1 for one class "
            "and no null class, as trained without labels, got None"
        )
    classes = labels - 1 if num_classes is None else num_classes
    if labels not in (classes, classes + 1):
        raise ValueError(
            f"num_classes must be {labels - 1} and a null class, or {labels} without one, for the "
            f"label table of {labels} rows in {path}, got {classes} (its args', unless given)"
        )
    if heads is None and hidden not in PUBLISHED_HEADS:
        raise ValueError(
            f"heads must be given for weights {hidden} wide, which is no published size, got None: "
            "DiT.from_pretrained takes it, and free convert --heads, for a format that keeps it"
        )
    prediction, reversed_time = FAMILIES[family or "dit"]
    return DiTConfig(
        _image_size(tensors, patch, path, image_size),
        patch,
        channels,
        hidden,
        depth,
        PUBLISHED_HEADS[hidden] if heads is None else heads,
        inner / max(1, hidden),
        classes,
        sets == 2,
        null_class=labels > classes,
        prediction=prediction,
        reversed_time=reversed_time,
        qk_norm="blocks.0.attn.q_norm.weight" in tensors,
    )


def _image_size(
    tensors: Mapping[str, StoredTensor], patch: int, path: Path, default: int | None
) -> int:
    table = tensors.get("pos_embed")
    if table is None:
        if default is None:
            raise ValueError(
                f"image_size must be given for weights without pos_embed or a configuration, "
                f"got None for {path}"
            )
        return default
    tokens = table.shape[1] if len(table.shape) == 3 else 0
    size = math.isqrt(tokens) * patch
    if not tokens or tokens != (size // patch) ** 2:
        raise ValueError(f"pos_embed in {path} must be of a square, got {list(table.shape)}")
    return size
