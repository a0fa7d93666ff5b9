"""Tensors kept together: a tensor, a tuple or dict of such, or None, as a drafter's carry is."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor


def take(tree: Any, rows: Tensor) -> Any:
    """Select rows of every tensor, in a new tree.

    Raises TypeError if the tree is something else.
    """
    return map_tensors(lambda part: part[rows], tree)


def put(tree: Any, rows: Tensor, values: Any) -> Any:
    """A new tree with ``values`` in these rows. The given one is the drafter's own: its rows may
    share memory, with each other or with what the drafter keeps, so it is not written to.

    Raises TypeError if the two are not built alike.
    """

    def written(part: Tensor, value: Tensor) -> Tensor:
        dtype = torch.promote_types(part.dtype, value.dtype)
        own = part.to(dtype).clone(memory_format=torch.contiguous_format)
        own[rows] = value.to(dtype)
        return own

    return map_tensors(written, tree, values)


def join(tree: Any, other: Any) -> Any:
    """The rows of one tree, then those of another that is built alike.

    Raises TypeError if the two are not built alike.
    """
    return map_tensors(lambda *parts: torch.cat(parts), tree, other)


def map_tensors(function: Callable[..., Tensor], tree: Any, *others: Any) -> Any:
    """``function`` of each tensor, and of those in its place in ``others``, built the same way.

    Raises TypeError if they are not built alike, or hold something else.
    """
    if any(type(other) is not type(tree) for other in others):
        got = " and ".join(type(part).__name__ for part in (tree, *others))
        raise TypeError(f"carries of carry_from and predict must be built alike, got {got}")
    if isinstance(tree, Tensor):
        return function(tree, *others)
    if tree is None:
        return None
    if isinstance(tree, tuple):
        parts = [map_tensors(function, *group) for group in zip(tree, *others, strict=True)]
        return type(tree)(*parts) if hasattr(tree, "_fields") else tuple(parts)
    if isinstance(tree, dict):
        return {
            name: map_tensors(function, part, *(other[name] for other in others))
            for name, part in tree.items()
        }
    raise TypeError(
        f"carry must be a tensor, a tuple or dict of tensors, or None, got {type(tree).__name__}"
    )
