"""Tensors kept together: a tensor, a tuple or dict of such, or None, as a drafter's carry is."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

__all__ = ["map_tensors", "put", "take"]


def take(carry: Any, rows: Tensor) -> Any:
    """These rows of the carry, in a new one.

    Raises
    ------
    TypeError
        If the carry is something else.
    """
    return map_tensors(lambda part: part[rows], carry)


def put(carry: Any, rows: Tensor, values: Any) -> Any:
    """A new carry with ``values`` in these rows. The given one is the drafter's own: its rows may
    share memory, with each other or with what the drafter keeps, so it is not written to.

    Raises
    ------
    TypeError
        If the two are not built alike.
    """

    def written(part: Tensor, value: Tensor) -> Tensor:
        dtype = torch.promote_types(part.dtype, value.dtype)
        own = part.to(dtype).clone(memory_format=torch.contiguous_format)
        own[rows] = value.to(dtype)
        return own

    return map_tensors(written, carry, values)


def map_tensors(function: Callable[..., Tensor], carry: Any, *others: Any) -> Any:
    """``function`` of each tensor, and of those in its place in ``others``, built the same way.

    Raises
    ------
    TypeError
        If they are not built alike, or hold something else.
    """
    if any(type(other) is not type(carry) for other in others):
        got = " and ".join(type(part).__name__ for part in (carry, *others))
        raise TypeError(f"carries of carry_from and predict must be built alike, got {got}")
    if isinstance(carry, Tensor):
        return function(carry, *others)
    if carry is None:
        return None
    if isinstance(carry, tuple):
        parts = [map_tensors(function, *group) for group in zip(carry, *others, strict=True)]
        return type(carry)(*parts) if hasattr(carry, "_fields") else tuple(parts)
    if isinstance(carry, dict):
        return {
            name: map_tensors(function, part, *(other[name] for other in others))
            for name, part in carry.items()
        }
    raise TypeError(
        f"carry must be a tensor, a tuple or dict of tensors, or None, got {type(carry).__name__}"
    )
