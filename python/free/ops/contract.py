"""The contracts of the ops, as the compiled core has them (``csrc/python/ops.cpp``).

From them follow the schema with torch, the words of errors and the shapes of results, here for
tensors of any kind, fake ones too; the compiled core checks, allocates and marshals by itself.
"""

from __future__ import annotations

import math
import re
import sys
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from free.arguments import shortened

# After torch, so that one OpenMP runtime serves both.
from free.ops import _C

#: ``times * (letter + plus)``, or a number; with ``open``, a letter for whatever is at least that.
Axis = tuple[str, str, int, str]

_AXIS = re.compile(r"(?:([A-Z])>=)?(?:([A-Z])\*)?([A-Z]?)([+-]?\d+)?")


class Argument(NamedTuple):
    """An argument or result as the contract has it; ``csrc/python/contract.h`` has the language."""

    name: str
    kind: str
    optional: bool
    shape: str
    dtypes: str
    written: bool
    group: str
    binds: str
    low: int | float
    high: int | float
    highest: str
    choices: Sequence[str]

    @property
    def axes(self) -> list[Axis]:
        """The axes that have a place of their own."""
        return [_axis(word) for word in self.shape.split(" > ")[0].split() if word[0] != "."]

    @property
    def rest(self) -> str:
        """The word for the other axes, if there may be some."""
        return next((word for word in self.shape.split() if word[0] == "."), "")

    @property
    def filled(self) -> bool:
        """Whether no axis may be empty."""
        return self.shape.endswith(" > 0")


def _axis(word: str) -> Axis:
    found = _AXIS.fullmatch(word)
    assert found is not None, word
    open_, times, letter, plus = found.groups("")
    return times, letter, int(plus or 0), open_


class Sizes:
    """What the letters of a contract stand for."""

    def __init__(self) -> None:
        self.letters: dict[str, Any] = {}
        self.rest: list[Any] | None = None

    def copy(self) -> Sizes:
        """What is known now."""
        sizes = Sizes()
        sizes.letters, sizes.rest = dict(self.letters), self.rest
        return sizes

    def value(self, axis: Axis) -> Any:
        """The extent of an axis; None where a letter is not known."""
        times, letter, plus, _ = axis
        each, base = self.letters.get(times, 1), self.letters.get(letter, 0)
        known = {"", *self.letters} >= {times, letter}
        return each * (base + plus) if known else None

    def shape(self, argument: Argument) -> list[Any]:
        """The shape of a result."""
        rest = self.rest if argument.rest else None
        return [*map(self.value, argument.axes), *(rest or [])]

    def bind(self, argument: Argument, value: Any) -> None:
        """Learn what is not known yet."""
        if argument.optional and argument.binds:
            self.letters[argument.binds] = 1 if value is None else 2
        elif argument.binds:
            self.letters[argument.binds] = value
        if argument.kind != "tensor" or value is None:
            return
        for (times, letter, plus, open_), extent in zip(argument.axes, value.shape, strict=False):
            if open_:
                self.letters.setdefault(open_, extent)
            elif letter and letter not in self.letters:
                each = self.letters[times] if times else 1
                self.letters[letter] = extent // each - plus
        if argument.rest and self.rest is None:
            self.rest = list(value.shape[len(argument.axes) :])

    def fits(self, argument: Argument, shape: Sequence[Any]) -> bool:
        """Whether this may be the shape of a tensor, all letters being known."""
        fixed = len(argument.axes)
        if len(shape) < fixed + (argument.rest == "...") or (argument.filled and 0 in shape):
            return False
        for axis, extent in zip(argument.axes, shape, strict=False):
            value = self.value(axis)
            if extent < value if axis[3] else extent != value:
                return False
        return list(shape[fixed:]) == (self.rest if argument.rest else [])

    def text(self, argument: Argument) -> str:
        """The shape as an error says it."""
        words = []
        for axis in argument.axes:
            times, letter, _, open_ = axis
            value = self.value(axis)
            known = str(value) if value is not None else letter
            if value is None and times in self.letters:
                known = f"a multiple of {self.letters[times]}"
            words.append(f"at least {known}" if open_ else known)
        if argument.rest:
            words += ["..."] if self.rest is None else [str(extent) for extent in self.rest]
        return f"{'a non-empty ' if argument.filled else ''}shape [{', '.join(words)}]"


class Contract(NamedTuple):
    """What an op takes and gives."""

    number: int
    name: str
    arguments: list[Argument]
    results: list[Argument]

    def schema(self) -> str:
        """The op as torch declares it."""
        kinds = {"integer": "SymInt", "number": "float", "flag": "bool", "choice": "str"}
        words = []
        for i, a in enumerate(self.arguments):
            kind = kinds.get(a.kind, f"Tensor({chr(97 + i)}!)" if a.written else "Tensor")
            words.append(f"{kind}{'?' if a.optional else ''} {a.name}")
        results = ", ".join(["Tensor"] * len(self.results))
        return f"{self.name}({', '.join(words)}) -> ({results})"

    def check(self, values: Sequence[Any]) -> None:
        """Raise unless arguments, in the contract's order, are what it says.

        Raises
        ------
        TypeError, ValueError
            Naming the argument, what was expected and what came.
        """
        sizes, pairs = Sizes(), list(zip(self.arguments, values, strict=True))
        for argument, value in pairs:
            if argument.kind != "tensor":
                _check_value(argument, value)
                sizes.bind(argument, value)
        first: Tensor | None = None
        for argument, value in pairs:
            if argument.kind != "tensor" or (argument.optional and value is None):
                continue
            _check_tensor(argument, value, sizes, first)
            first = value if first is None else first
        for argument, value in pairs:
            if argument.highest and value is not None:
                _check_integer(argument, value, sizes.value(_axis(argument.highest)))
        for group in {a.group for a in self.arguments if a.group}:
            if len({value is None for argument, value in pairs if argument.group == group}) > 1:
                raise ValueError(f"{group}: expected both or neither, got one of them")

    def check_memory(self, values: Sequence[Any]) -> None:
        """Raise ValueError where a tensor that is changed in place shares memory with another."""
        tensors = [
            (argument, value.data_ptr(), value.nbytes)
            for argument, value in zip(self.arguments, values, strict=True)
            if isinstance(value, Tensor)
        ]
        for argument, start, size in tensors:
            for other, its, its_size in tensors:
                shared = its < start + size and start < its + its_size and start != 0
                if argument.written and other is not argument and shared:
                    raise ValueError(
                        f"{argument.name}: expected memory of its own, because it is written to, "
                        f"got memory of {other.name}"
                    )

    def allocate(self, values: Sequence[Any]) -> tuple[Tensor, ...]:
        """Results for arguments that have been checked, not written yet."""
        sizes, given = Sizes(), list(zip(self.arguments, values, strict=True))
        for argument, value in sorted(given, key=lambda pair: pair[0].kind == "tensor"):
            sizes.bind(argument, value)
        first = next(value for value in values if isinstance(value, Tensor))
        absent = {argument.group for argument, value in given if value is None}
        return tuple(
            first.new_empty(
                [0] if result.group and result.group in absent else sizes.shape(result),
                dtype=getattr(torch, result.dtypes),
            )
            for result in self.results
        )


def _check_value(argument: Argument, value: Any) -> None:
    name, kind = argument.name, argument.kind
    if argument.optional and value is None:
        return
    if kind == "integer":
        _check_integer(argument, value, argument.high)
    elif kind == "number":
        if isinstance(value, bool) or not isinstance(value, (int, float, torch.SymFloat)):
            raise TypeError(f"{name}: expected a number, got {type(value).__name__}")
        if isinstance(value, int) and abs(value) > sys.float_info.max:
            came = shortened(value)
            raise ValueError(f"{name}: expected a value that a float can hold, got {came}")
        if not argument.low <= value <= argument.high:
            raise ValueError(f"{name}: expected {_interval(argument)}, got {shortened(value)}")
    elif kind == "flag":
        if not isinstance(value, bool):
            raise TypeError(f"{name}: expected a bool, got {type(value).__name__}")
    elif value not in argument.choices:
        expected = ", ".join(map(repr, argument.choices))
        raise ValueError(f"{name}: expected one of {expected}, got {value!r}")


def _interval(argument: Argument) -> str:
    if argument.high < 1e300:
        return f"a value in [{argument.low:g}, {argument.high:g}]"
    return f"a {'' if math.isinf(argument.high) else 'finite '}value >= {argument.low:g}"


def _check_integer(argument: Argument, value: Any, high: Any) -> None:
    name, low = argument.name, argument.low
    if isinstance(value, bool) or not isinstance(value, (int, torch.SymInt)):
        raise TypeError(f"{name}: expected an integer, got {type(value).__name__}")
    if value < low or value > high:
        unlimited = high >= 2**32 - 1 and value < low
        expected = f"at least {low}" if unlimited else f"a value in {low}..{high}"
        none = ", or None" if argument.optional else ""
        raise ValueError(f"{name}: expected {expected}{none}, got {shortened(value)}")


def _check_tensor(argument: Argument, value: Any, sizes: Sizes, first: Tensor | None) -> None:
    name = argument.name
    if not isinstance(value, Tensor):
        raise TypeError(f"{name}: expected a tensor, got {type(value).__name__}")
    *others, last = argument.dtypes.split()
    if (dtype := str(value.dtype).removeprefix("torch.")) not in (*others, last):
        expected = f"{', '.join(others)} or {last}" if others else last
        raise TypeError(f"{name}: expected {expected}, got {dtype}")
    known = sizes.copy()
    sizes.bind(argument, value)
    if not sizes.fits(argument, value.shape):
        raise ValueError(f"{name}: expected {known.text(argument)}, got {list(value.shape)}")
    if first is not None and value.device != first.device:
        raise ValueError(f"{name}: expected a tensor on {first.device}, got one on {value.device}")
    if not value.is_contiguous():
        raise ValueError(f"{name}: expected a contiguous tensor, got strides {[*value.stride()]}")


#: By name.
CONTRACTS = {
    name: Contract(index, name, *([Argument(*each) for each in some] for some in described))
    for index, (name, *described) in enumerate(_C.contracts())
}
