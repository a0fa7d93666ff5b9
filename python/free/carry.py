"""Rows of a drafter's carry: a tensor, a (named) tuple of carries, or None."""

from __future__ import annotations

from typing import Any

from torch import Tensor

__all__ = ["put", "take"]


def take(carry: Any, rows: Tensor) -> Any:
    """These rows of the carry, in a new one.

    Raises
    ------
    TypeError
        If the carry is something else.
    """
    if isinstance(carry, tuple):
        return _like(carry, [take(part, rows) for part in carry])
    if carry is None or isinstance(carry, Tensor):
        return None if carry is None else carry[rows]
    raise TypeError(
        f"carry must be a tensor, a tuple of tensors or None, got {type(carry).__name__}"
    )


def put(carry: Any, rows: Tensor, values: Any) -> Any:
    """The carry with ``values`` written, in place, over these rows."""
    if isinstance(carry, tuple):
        return _like(carry, [put(part, rows, v) for part, v in zip(carry, values, strict=True)])
    if isinstance(carry, Tensor):
        carry[rows] = values
    return carry


def _like(carry: tuple[Any, ...], parts: list[Any]) -> Any:
    return type(carry)(*parts) if hasattr(carry, "_fields") else tuple(parts)
