"""Arguments of an op, drawn from its contract: valid ones, whatever their values.

Of floats that is signed zeros, denormals, the largest there are, infinities and NaN; of integers
the ends of their range. Only what an op looks at on the CPU is held within its limits.
"""

from __future__ import annotations

import math
import random
import re
import sys
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from free.ops._C import Argument, Contract
from free.ops.contract import CONTRACTS
from tests.ops.sizes import Sizes

LARGEST = torch.finfo(torch.float32).max
TINY = 2.0**-149
WORD = 2**32 - 1

FLOATS = (0.0, -0.0, TINY, -TINY, 1e-39, 1e-20, -1e-6, 1e20, LARGEST, -LARGEST)
NOT_FINITE = (math.inf, -math.inf, math.nan)
NUMBERS = (0.0, -0.0, 5e-324, 1e-300, 0.25, 0.5, 1.0, 1.5, -3.0, sys.float_info.max, math.inf)

#: What an op looks at: integers from the first to the second, or special floats and a scale of
#: ordinary ones, which are not negative.
LIMITS: dict[tuple[str, str], Any] = {
    ("window_noise", "k"): (0, "2**32-W"),
    ("window_noise", "rounds"): (0, WORD),
    ("first_guesses", "row"): (0, "R-1"),
    ("response_sums", "row"): (0, "R-1"),
    ("note_nonfinite_", "samples"): (0, "S-1"),
    ("target_means", "k"): (0, "N-1"),
    ("drafter_rows", "k"): (0, "N-1"),
    ("network_rows", "sample"): (0, "B-1"),
    ("network_rows", "entry"): (0, "W-1"),
}
for _op in ("philox_normal", "philox_uniform"):
    LIMITS |= {(_op, name): (0, WORD) for name in ("transition", "round")}
for _op in ("verify_window", "verify_window_relaxed"):
    LIMITS |= {
        (_op, "length"): (1, "W"),
        (_op, "sigma"): ((0.0, -0.0, TINY, 1e-20, 1e20, LARGEST), 0.5),
        (_op, "uniforms"): ((0.0, -0.0, TINY, 1 - 2.0**-24), 1.0),
        (_op, "uncertainty"): ((0.0, -0.0, -1.0, TINY, LARGEST, -LARGEST), 1.0),
        (_op, "spent"): ((0.0, -0.0, 5e-324, 1e300, sys.float_info.max), 0.1),
    }


class Case(NamedTuple):
    """Arguments by name. ``comparable``: no sum has terms of which one could drown another."""

    name: str
    given: dict[str, Any]
    comparable: bool


def draw(rng: random.Random, name: str | None = None) -> Case:
    """Valid arguments of an op, by default of any."""
    name = rng.choice(list(CONTRACTS)) if name is None else name
    return _Draw(rng, CONTRACTS[name]).case()


class _Draw:
    def __init__(self, rng: random.Random, contract: Contract) -> None:
        self.rng, self.contract, self.sizes = rng, contract, Sizes()
        self.torch = torch.Generator().manual_seed(rng.getrandbits(63))
        # Shares of values that are special, of each tensor; none at all in half of the calls.
        self.shares = rng.choice(((0.0,), (0.0, 0.05, 0.5, 1.0)))
        self.specials = FLOATS + NOT_FINITE if rng.random() < 0.5 else FLOATS
        self.small = rng.random() < 0.6
        self.absent = {a.group or a.name for a in contract.arguments if rng.random() < 0.3}

    def case(self) -> Case:
        arguments, given = self.contract.arguments, {}
        values = [a for a in arguments if a.kind != "tensor"]
        free = [a for a in values if not a.highest]
        tensors = [a for a in arguments if a.kind == "tensor"]
        for a in free:
            given[a.name] = self.value(a)
            self.sizes.bind(a, given[a.name])
        shapes = {a.name: self.shape(a) for a in tensors if not self.is_absent(a)}
        for a in tensors:
            given[a.name] = self.tensor(a, shapes[a.name]) if a.name in shapes else None
        # Limits of the others depend on sizes, and on each other.
        for a in (a for a in reversed(values) if a.highest):
            given[a.name] = self.value(a)
            self.sizes.bind(a, given[a.name])
        if self.contract.name == "network_rows" and given["sample"] is None:
            given["rows"] = self.sizes.letters["B"] * (given["end"] - given["first"])
        terms = math.prod(self.sizes.rest or [1])
        if self.contract.name == "response_sums":
            terms *= self.sizes.letters["W"] - 1
        return Case(self.contract.name, given, len(self.shares) == 1 or terms <= 1)

    def is_absent(self, a: Argument) -> bool:
        return a.optional and (a.group or a.name) in self.absent

    def value(self, a: Argument) -> Any:
        if self.is_absent(a):
            return None
        if a.kind == "flag":
            return self.rng.random() < 0.5
        if a.kind == "choice":
            return self.rng.choice(a.choices)
        if a.kind == "number":
            return self.rng.choice([n for n in NUMBERS if a.least <= n <= a.most])
        high = self.sizes.value(a.highest[0]) if a.highest else a.high
        small = self.rng.randint(a.low, min(a.low + 5, high))
        return small if a.binds else self.rng.choice((small, a.low, high))

    def extent(self) -> int:
        return self.rng.randint(1, 2 if self.small else 5)

    def shape(self, a: Argument) -> list[int]:
        for times, letter, plus, open_ in a.axes:
            if letter and letter not in self.sizes.letters:
                self.sizes.letters[letter] = self.extent()
            if open_:
                least = self.sizes.value((times, letter, plus, open_))
                self.sizes.letters.setdefault(open_, least + self.rng.randint(0, 2))
        if a.rest and self.sizes.rest is None:
            axes = self.rng.randint(int(a.rest == "..."), 3)
            sizes = (1,) if self.small else (1, 2, 3, 15, 16, 17, 33)
            self.sizes.rest = [self.rng.choice(sizes) for _ in range(axes)]
        open_at = [self.sizes.letters.get(axis[3]) for axis in a.axes]
        extents = self.sizes.shape(a)
        return [o or e for o, e in zip(open_at + [None] * len(extents), extents, strict=False)]

    def tensor(self, a: Argument, shape: list[int]) -> Tensor:
        dtype = getattr(torch, self.rng.choice(re.findall(r"[a-z]+\d+", a.dtypes)))
        limits = LIMITS.get((self.contract.name, a.name))
        if dtype.is_floating_point:
            specials, scale = limits or (self.specials, 0.0)
            ordinary = torch.randn(shape, generator=self.torch)
            if scale:
                ordinary = scale * torch.rand(shape, generator=self.torch)
            return self.mixed(ordinary, specials).to(dtype)
        info = torch.iinfo(dtype)
        if limits:
            low, high = (self.limit(end) for end in limits)
            return self.integers(shape, low, high, (low, high)).to(dtype)
        ends = (info.min, info.min + 1, info.max - 1, info.max)
        return self.integers(shape, -2, 9, ends).to(dtype)

    def limit(self, end: int | str) -> int:
        """A number, or sizes by their letters."""
        return end if isinstance(end, int) else eval(end, {}, self.sizes.letters)

    def mixed(self, ordinary: Tensor, specials: Sequence[Any]) -> Tensor:
        wide = ordinary.double() if ordinary.is_floating_point() else ordinary
        chosen = torch.randint(len(specials), wide.shape, generator=self.torch)
        share = self.rng.choice(self.shares)
        special = torch.rand(wide.shape, generator=self.torch) < share
        return torch.where(special, torch.tensor(specials, dtype=wide.dtype)[chosen], wide)

    def integers(self, shape: list[int], low: int, high: int, ends: Sequence[int]) -> Tensor:
        ordinary = torch.randint(low, high + 1, shape, generator=self.torch)
        return self.mixed(ordinary, ends)
