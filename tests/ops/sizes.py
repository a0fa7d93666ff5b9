"""The letters of the ops' contracts, read once more than by the compiled core."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from free.ops import _C


class Sizes:
    """What the letters of a contract stand for."""

    def __init__(self) -> None:
        self.letters: dict[str, Any] = {}
        self.rest: list[Any] | None = None

    def value(self, axis: _C.Axis) -> Any:
        """The extent of an axis."""
        times, letter, plus, _ = axis
        return self.letters.get(times, 1) * (self.letters.get(letter, 0) + plus)

    def shape(self, argument: _C.Argument) -> list[Any]:
        """The shape of a result."""
        rest = self.rest if argument.rest else None
        return [*map(self.value, argument.axes), *(rest or [])]

    def bind(self, argument: _C.Argument, value: Any) -> None:
        """Learn what is not known yet."""
        if argument.binds:
            given = 1 if value is None else 2
            self.letters[argument.binds] = given if argument.optional else value
        if not isinstance(value, Tensor):
            return
        for (times, letter, plus, open_), extent in zip(argument.axes, value.shape, strict=False):
            if open_:
                self.letters.setdefault(open_, extent)
            elif letter:
                self.letters.setdefault(letter, extent // self.letters.get(times, 1) - plus)
        if argument.rest and self.rest is None:
            self.rest = list(value.shape[len(argument.axes) :])
