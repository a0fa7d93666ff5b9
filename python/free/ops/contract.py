"""The contracts of the ops, as the compiled core has them (``csrc/python/contract.h``).

The core checks, allocates and marshals by them, whatever the tensors are. Here follow the schema
with torch, and the results where sizes are symbols of a compiler, with which only torch reckons.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

# After torch, so that one OpenMP runtime serves both.
from free.ops import _C

#: By name.
CONTRACTS = {contract.name: contract for contract in _C.contracts()}


def schema(contract: _C.Contract) -> str:
    """The op as torch declares it."""
    kinds = {"integer": "SymInt", "number": "float", "flag": "bool", "choice": "str"}
    words = []
    for i, a in enumerate(contract.arguments):
        kind = kinds.get(a.kind, f"Tensor({chr(97 + i)}!)" if a.written else "Tensor")
        words.append(f"{kind}{'?' if a.optional else ''} {a.name}")
    results = ", ".join(["Tensor"] * len(contract.results))
    return f"{contract.name}({', '.join(words)}) -> ({results})"


def check(
    contract: _C.Contract, values: Sequence[Any], allocate: bool = False
) -> tuple[Tensor, ...]:
    """Raise TypeError or ValueError unless arguments, in the contract's order, are what it says.

    Results, not written yet, are returned if asked for. Symbolic sizes are left to the run.
    """
    sizes = (n for v in values for n in (v.shape if isinstance(v, Tensor) else (v,)))
    # Looked at as a number, a symbol would be bound to it.
    if not any(isinstance(n, (torch.SymInt, torch.SymFloat)) for n in sizes):
        return _C.check(contract.number, tuple(values), allocate)
    return _by_symbols(contract, values) if allocate else ()


def _by_symbols(contract: _C.Contract, values: Sequence[Any]) -> tuple[Tensor, ...]:
    """Results of symbolic sizes."""
    letters: dict[str, Any] = {}
    rest: Sequence[Any] = ()
    given = list(zip(contract.arguments, values, strict=True))
    for a, value in given:
        if a.binds:
            letters[a.binds] = value if not a.optional else 1 if value is None else 2
        elif isinstance(value, Tensor):
            for (times, letter, plus, open_), extent in zip(a.axes, value.shape, strict=False):
                if not (times or plus or open_):
                    letters.setdefault(letter, extent)
            rest = rest or (value.shape[len(a.axes) :] if a.rest else ())
    absent = {a.group for a, value in given if value is None} - {""}
    first = next(value for value in values if isinstance(value, Tensor))
    results = []
    for a in contract.results:
        shape = [letters.get(t, 1) * (letters.get(n, 0) + plus) for t, n, plus, _ in a.axes]
        shape = [0] if a.group in absent else [*shape, *(rest if a.rest else ())]
        results.append(first.new_empty(shape, dtype=getattr(torch, a.dtypes)))
    return tuple(results)
