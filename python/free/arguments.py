"""Numbers that callers pass: Python's and NumPy's alike, and no booleans among them."""

from __future__ import annotations

import math
import operator
import reprlib
from numbers import Real
from typing import Any

import numpy as np


def as_integer(value: Any, expected: str, least: int, most: int | None = None) -> int:
    """An integer of any kind as Python's.

    Raises ValueError, ``expected`` and what came, for anything else and out of ``least .. most``.
    """
    try:
        number = None if _is_bool(value) else operator.index(value)
    except TypeError:
        number = None
    if number is None or number < least or (most is not None and number > most):
        raise ValueError(f"{expected}, got {shortened(value)}")
    return number


def as_number(value: Any, expected: str, least: float = -math.inf, most: float = math.inf) -> float:
    """A finite real number of any kind as Python's.

    Raises ValueError, ``expected`` and what came, for anything else and out of ``least .. most``.
    """
    try:
        number = float(value) if isinstance(value, Real) and not _is_bool(value) else math.nan
    except OverflowError:
        number = math.inf
    if not (math.isfinite(number) and least <= number <= most):
        raise ValueError(f"{expected}, got {shortened(value)}")
    return number


def shortened(value: Any) -> str:
    """What came, as a message has it: its ``repr``, without the middle where that is long."""
    try:
        return reprlib.repr(value)
    except ValueError:  # more digits than Python writes
        return f"an integer of {value.bit_length()} bits"


def _is_bool(value: Any) -> bool:
    """Whether it is True or False: they count, but nobody means that."""
    return isinstance(value, (bool, np.bool_))
