"""Compiled core; :mod:`free.ops.operator` is the only one that calls it."""

from collections.abc import Callable, Sequence
from typing import Any

#: ``times * (letter + plus)``, or a number; with ``open``, a letter for whatever is at least that.
Axis = tuple[str, str, int, str]

class Argument:
    """An argument or result as the contract has it; ``csrc/python/contract.h`` has the language."""

    name: str
    kind: str
    optional: bool
    axes: Sequence[Axis]  # those with a place of their own
    rest: str  # the word for others, if there may be some
    filled: bool
    dtypes: str
    written: bool
    group: str
    binds: str
    low: int
    high: int
    least: float
    most: float
    highest: Sequence[Axis]  # a limit that depends on sizes, if there is one
    choices: Sequence[str]

class Contract:
    number: int
    name: str
    arguments: Sequence[Argument]
    results: Sequence[Argument]

DTYPES: Sequence[str]

def contracts() -> Sequence[Contract]: ...
def connect(
    *,
    tensor: type,
    described: Callable[[Any, bool], tuple[Any, ...]],
    empty: Callable[[Any, Sequence[int], int], Any],
    stream_of: Callable[[Any], int],
    shortened: Callable[[Any], str],
    exchange: Any,
) -> None: ...
def run(op: int, args: Any, kwargs: Any, defaults: Any, most: int | None, /) -> Any: ...
def check(op: int, args: tuple[Any, ...], allocate: bool) -> tuple[Any, ...]: ...
def record(op: int, kwargs: dict[str, Any], results: tuple[Any, ...]) -> bytes: ...
def cuda_refusal(device: int) -> str | None: ...
def build_info() -> dict[str, Any]: ...
def cuda_devices() -> tuple[list[dict[str, Any]], str | None]: ...
