"""The CUDA kernels executed on the CPU: their text, compiled as C++ with ``tests/cuda_shim``.

Every tensor a kernel is given lies between pads: what is read beyond its ends is NaN (or nonsense)
and spoils the result, what is written there is noticed.
"""

from __future__ import annotations

import ctypes
import math
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from ctypes import POINTER, Structure, c_bool, c_char_p, c_double, c_float, c_int, c_int64, c_uint32
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from free.ops import (
    VERIFIERS,
    FirstGuesses,
    RecycledRows,
    TargetMeans,
    Verified,
    VerifiedRelaxed,
    WindowNoise,
)
from free.reference.decide import RULES

ROOT = Path(__file__).parents[1]
INCLUDE = ("tests/cuda_shim", "csrc", "csrc/include")
FLAGS = ("-std=c++17", "-O1", "-fPIC", "-ffp-contract=off", "-Wno-unknown-pragmas")
PAD = 64
DTYPES = (torch.float32, torch.float16, torch.bfloat16)  # as enum Float has them

pointer = ctypes.c_void_p


class _Window(Structure):
    _fields_ = (
        *((name, c_int64) for name in ("batch", "width", "size")),
        *((name, pointer) for name in ("states", "draft_means", "target_means", "sigma")),
        *((name, pointer) for name in ("length", "uniforms", "noise")),
        *((name, pointer) for name in ("state", "advance", "accepted", "log_ratio")),
    )


class _Lenience(Structure):
    _fields_ = (
        ("rule", c_int),
        ("strength", c_double),
        ("budget", c_double),
        *((name, pointer) for name in ("uncertainty", "spent", "bound", "log_likelihood")),
    )


class _WindowNoise(Structure):
    _fields_ = (
        *((name, c_int64) for name in ("batch", "width", "size")),
        *((name, c_uint32) for name in ("purpose", "decision")),
        *((name, pointer) for name in ("seeds", "k", "rounds", "length")),
        *((name, pointer) for name in ("noise", "uniforms", "last")),
    )


class _FirstGuesses(Structure):
    _fields_ = (
        *((name, c_int64) for name in ("batch", "width", "size", "rows", "stride", "steps")),
        *((name, pointer) for name in ("x", "k", "past_x", "past_guess", "row", "known")),
        *((name, pointer) for name in ("source", "dot", "square", "columns")),
        *((name, pointer) for name in FirstGuesses._fields),
    )


class _Roll(Structure):
    _fields_ = (
        *((name, c_int64) for name in ("batch", "width", "size", "first", "end")),
        ("adds", c_bool),
        *((name, pointer) for name in ("states", "means", "guesses", "noise", "intercept")),
        *((name, pointer) for name in ("slope", "change", "settled", "a", "b", "sigma")),
    )


class _Draws(Structure):
    _fields_ = (
        *((name, c_int64) for name in ("rows", "size")),
        *((name, pointer) for name in ("seeds", "transition", "round")),
        ("purpose", c_uint32),
        ("out", pointer),
    )


class _TargetMeans(Structure):
    _fields_ = (
        *((name, c_int64) for name in ("rows", "size", "guided")),
        ("scale", c_float),
        ("x", pointer),
        ("eps", pointer),
        ("type", c_int),
        ("paired", c_bool),
        *((name, pointer) for name in ("a", "b", "signal", "noise")),
        *((name, pointer) for name in ("combined", "means", "guess")),
    )


class _RecycledRows(Structure):
    _fields_ = (
        ("batch", c_int64),
        ("width", c_int64),
        ("discarded", c_bool),
        ("stride", c_int64),
        *((name, pointer) for name in ("length", "advance", "row", "known")),
    )


DOORS = {
    "shim_verify": (POINTER(_Window), c_int, pointer),
    "shim_verify_relaxed": (POINTER(_Window), POINTER(_Lenience), pointer),
    "shim_window_noise": (POINTER(_WindowNoise),),
    "shim_first_guesses": (POINTER(_FirstGuesses),),
    "shim_roll": (POINTER(_Roll),),
    "shim_means": (POINTER(_TargetMeans),),
    "shim_philox": (POINTER(_Draws), c_int),
    "shim_rows": (POINTER(_RecycledRows),),
}


def compiler() -> str | None:
    return shutil.which("g++")


def sources() -> list[Path]:
    """The kernels, and the shim's own."""
    kernels = (ROOT / "csrc/cuda").glob("*.cu")
    own = (ROOT / "tests/cuda_shim").glob("*.cpp")
    return [path for path in (*sorted(kernels), *sorted(own)) if path.name != "device.cu"]


def _object(source: Path, folder: Path) -> Path:
    return folder / (source.name + ".o")


def _compile(source: Path, folder: Path) -> Path:
    """Its object file; headers in ``folder`` come before others."""
    made = _object(source, folder)
    include = [f"-I{path}" for path in (folder, *(ROOT / path for path in INCLUDE))]
    command = ["g++", *FLAGS, *include, "-x", "c++", "-c", str(source), "-o", str(made)]
    subprocess.run(command, check=True)
    return made


def _link(objects: dict[str, Path], folder: Path) -> Kernels:
    library = folder / "kernels.so"
    subprocess.run(["g++", "-shared", *map(str, objects.values()), "-o", str(library)], check=True)
    return Kernels(library, objects)


def build(folder: Path) -> Kernels:
    """Compile the kernels as they are, unless that has been done there; some seven seconds."""
    library = folder / "kernels.so"
    if library.exists():
        return Kernels(library, {source.name: _object(source, folder) for source in sources()})
    folder.mkdir(exist_ok=True)
    return _link({source.name: _compile(source, folder) for source in sources()}, folder)


def build_with_bug(
    clean: Kernels, kernel: str, old: str, new: str, folder: Path, header: str | None = None
) -> Kernels:
    """The same with ``new`` for ``old`` in one kernel's text, or in a header of it in
    ``csrc/include``; the text must have it once.
    """
    origin = ROOT / "csrc/include" / header if header else ROOT / "csrc/cuda" / kernel
    text = origin.read_text(encoding="utf-8")
    assert text.count(old) == 1, f"{origin.name}: the bug fits {text.count(old)} places"
    copy = folder / (header or kernel)
    copy.parent.mkdir(exist_ok=True)
    copy.write_text(text.replace(old, new), encoding="utf-8")
    source = ROOT / "csrc/cuda" / kernel if header else copy
    return _link(clean.objects | {kernel: _compile(source, folder)}, folder)


class _Guarded:
    """A tensor between pads in memory of its own, ``shift`` elements off a multiple of 64 bytes."""

    def __init__(self, tensor: Tensor, shift: int = 0) -> None:
        self.floating = tensor.is_floating_point()
        self.pad = math.nan if self.floating else 77
        size = tensor.numel()
        self.memory = torch.full((size + 2 * PAD + shift,), self.pad, dtype=tensor.dtype)
        self.span = slice(PAD + shift, PAD + shift + size)
        assert self.memory.data_ptr() % 64 == 0
        self.tensor = self.memory[self.span].view(tensor.shape)
        self.tensor.copy_(tensor)

    @property
    def pointer(self) -> int:
        return self.memory.data_ptr() + self.span.start * self.memory.element_size()

    def pads_are_intact(self) -> bool:
        pads = torch.cat([self.memory[: self.span.start], self.memory[self.span.stop :]])
        return bool((pads.isnan() if self.floating else pads == self.pad).all())


class Kernels:
    """The launchers of a shared library, with the arguments and results of :mod:`free.ops`."""

    def __init__(self, library: Path, objects: dict[str, Path]) -> None:
        self.objects = objects
        self._doors = ctypes.CDLL(str(library))
        self.door("shim_workspace", c_int64, *[c_int64] * 3)
        for name, types in DOORS.items():
            self.door(name, c_char_p, *types)
        self.shift = 0

    def door(self, name: str, result: Any, *types: Any) -> Any:
        """A function of the library."""
        door = getattr(self._doors, name)
        door.argtypes, door.restype = types, result
        return door

    @contextmanager
    def on(self, processors: int = 1, descending: bool = False, shift: int = 0) -> Iterator[None]:
        """On a device of so many processors, threads in another order, tensors not aligned."""
        self._doors.shim_device(processors, descending)
        self.shift = shift
        yield
        self._doors.shim_device(1, False)
        self.shift = 0

    def _call(self, name: str, *arguments: Any, tensors: Sequence[_Guarded]) -> None:
        if failure := getattr(self._doors, name)(*arguments):
            raise RuntimeError(failure.decode())
        assert all(tensor.pads_are_intact() for tensor in tensors), "written out of bounds"

    def _guard(self, *tensors: Tensor) -> list[_Guarded]:
        return [_Guarded(tensor, self.shift) for tensor in tensors]

    def _window(self, window: Sequence[Tensor]) -> tuple[_Window, list[_Guarded], Tensor]:
        states, *_, length, uniforms, noise = window
        batch, width = states.shape[:2]
        size = states[0, 0].numel()
        results = (noise, length, length, uniforms)
        guarded = self._guard(*window, *(_nonsense(result) for result in results))
        structure = _Window(batch, width, size, *(tensor.pointer for tensor in guarded))
        space = self._doors.shim_workspace(batch, width, size)
        return structure, guarded, torch.full((space // 8,), math.nan, dtype=torch.float64)

    def verify_window(self, *arguments: Any) -> Verified:
        *window, verifier = arguments
        structure, guarded, space = self._window(window)
        rule = VERIFIERS.index(verifier)
        self._call("shim_verify", structure, rule, space.data_ptr(), tensors=guarded)
        return Verified(*(tensor.tensor for tensor in guarded[7:]))

    def verify_window_relaxed(self, *arguments: Any) -> VerifiedRelaxed:
        *window, uncertainty, spent, rule, strength, budget = arguments
        structure, guarded, space = self._window(window)
        more = self._guard(spent, _nonsense(spent), _nonsense(spent))
        unsure = [] if uncertainty is None else self._guard(uncertainty)
        lenience = _Lenience(
            list(RULES).index(rule),
            strength,
            budget,
            unsure[0].pointer if unsure else None,
            *(tensor.pointer for tensor in more),
        )
        tensors = [*guarded, *more, *unsure]
        self._call("shim_verify_relaxed", structure, lenience, space.data_ptr(), tensors=tensors)
        return VerifiedRelaxed(*(tensor.tensor for tensor in (*guarded[7:], *more[1:])))

    def window_noise(
        self,
        seeds: Tensor,
        k: Tensor,
        rounds: Tensor | None,
        length: Tensor,
        width: int,
        size: int,
        purpose: int,
        decision: int,
    ) -> WindowNoise:
        batch = len(seeds)
        shapes = ((batch, width - 1, size), (batch, width - 1), (batch, size))
        given = [None if t is None else _Guarded(t, self.shift) for t in (seeds, k, rounds, length)]
        drawn = self._guard(*(torch.full(shape, -77.0) for shape in shapes))
        pointers = (None if t is None else t.pointer for t in (*given, *drawn))
        draws = _WindowNoise(batch, width, size, purpose, decision, *pointers)
        tensors = [t for t in (*given, *drawn) if t is not None]
        self._call("shim_window_noise", draws, tensors=tensors)
        return WindowNoise(*(t.tensor for t in drawn))

    def first_guesses(self, *arguments: Any) -> FirstGuesses:
        *inputs, drafts = arguments
        x, k, past_x, _, row, *_, columns = inputs
        batch, width, size = len(x), drafts + 1, x[0].numel()
        sample = x.shape[1:]
        results = (
            *(torch.empty(batch, width, *sample) for _ in range(3)),
            torch.empty(batch, drafts, *sample),
            torch.empty(batch, drafts),
            k,
            torch.empty(batch, width, dtype=torch.int64),
            torch.empty(3, batch, width),
        )
        guarded = self._guard(*inputs, *map(_nonsense, results))
        shape = (batch, width, size, len(past_x), row.shape[1], columns.shape[1])
        guesses = _FirstGuesses(*shape, *(tensor.pointer for tensor in guarded))
        self._call("shim_first_guesses", guesses, tensors=guarded)
        return FirstGuesses(*(tensor.tensor for tensor in guarded[len(inputs) :]))

    def roll_window_(self, *arguments: Any) -> None:
        *rows, adds, a, b, sigma, first, end = arguments
        given = [None if t is None else _Guarded(t, self.shift) for t in (*rows, a, b, sigma)]
        batch, width, *sample = rows[0].shape
        shape = (batch, width, torch.Size(sample).numel(), first, end, adds)
        roll = _Roll(*shape, *(None if t is None else t.pointer for t in given))
        self._call("shim_roll", roll, tensors=[t for t in given if t is not None])
        for tensor, written in zip(rows[:3], given, strict=False):
            tensor.copy_(written.tensor)

    def philox(self, law: str, *arguments: Any) -> Tensor:
        *columns, purpose, size = arguments
        rows = len(columns[0])
        guarded = self._guard(*columns, torch.full((rows, size), -77.0))
        *given, out = (tensor.pointer for tensor in guarded)
        draws = _Draws(rows, size, *given, purpose, out)
        self._call("shim_philox", draws, law == "normal", tensors=guarded)
        return guarded[-1].tensor

    def target_means(
        self,
        x: Tensor,
        eps: Tensor,
        a: Tensor,
        b: Tensor,
        cfg_scale: float | None,
        cfg_channels: int | None,
        signal: Tensor | None = None,
        noise: Tensor | None = None,
    ) -> TargetMeans:
        asked = signal is not None
        given = (x, eps, a, b, *((signal, noise) if asked else ()))
        guarded = self._guard(*given, *[_nonsense(x)] * (3 if asked else 2))
        p_x, p_eps, *others = (tensor.pointer for tensor in guarded)
        if not asked:
            others = [*others[:2], None, None, *others[2:], None]
        guided = x.shape[1] if cfg_channels is None else cfg_channels
        means = _TargetMeans(
            len(x),
            x[0].numel(),
            0 if cfg_scale is None else guided * x[0, 0].numel(),
            1.0 if cfg_scale is None else cfg_scale,
            p_x,
            p_eps,
            DTYPES.index(eps.dtype),
            cfg_scale is not None,
            *others,
        )
        self._call("shim_means", means, tensors=guarded)
        results = [tensor.tensor for tensor in guarded[len(given) :]]
        return TargetMeans(*results) if asked else TargetMeans(*results, x.new_empty(0))

    def recycled_rows(
        self,
        length: Tensor,
        advance: Tensor,
        width: int,
        discarded: bool,
        stride: int | None = None,
    ) -> RecycledRows:
        row = torch.empty(len(length), width, dtype=torch.int64)
        known = torch.empty(len(length), dtype=torch.int64)
        guarded = self._guard(length, advance, _nonsense(row), _nonsense(known))
        pointers = (tensor.pointer for tensor in guarded)
        rows = _RecycledRows(len(length), width, discarded, stride or 0, *pointers)
        self._call("shim_rows", rows, tensors=guarded)
        return RecycledRows(*(tensor.tensor for tensor in guarded[-2:]))


def same(actual: Sequence[Tensor], expected: Sequence[Tensor], tolerance: float = 0.0) -> None:
    """Raise unless results agree, numbers within the tolerance."""
    for value, other in zip(actual, expected, strict=True):
        limits = {"rtol": tolerance, "atol": tolerance} if value.is_floating_point() else {}
        torch.testing.assert_close(value, other, equal_nan=True, **limits)


def _nonsense(like: Tensor) -> Tensor:
    """What results hold before they are written."""
    return torch.full_like(like, -77)
