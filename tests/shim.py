"""The CUDA kernels executed on the CPU: their text, compiled as C++ with ``tests/cuda_shim``.

Every tensor a kernel is given lies between pads: what is read beyond its ends is NaN (or nonsense)
and spoils the result, what is written there is noticed.
"""

from __future__ import annotations

import ctypes
import functools
import inspect
import math
import shutil
import subprocess
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from free import reference
from free.ops import _C
from free.ops.contract import CONTRACTS, check

ROOT = Path(__file__).parents[1]
INCLUDE = ("tests/cuda_shim", "csrc", "csrc/include")
FLAGS = ("-std=c++17", "-O1", "-fPIC", "-ffp-contract=off", "-Wno-unknown-pragmas")
#: Compiled once, before all that includes them: most of a kernel's time is theirs.
HEADERS = ("cuda_runtime.h", "algorithm", "cmath", "stdexcept", "string", "vector")
PAD = 64
DTYPES = (torch.float32, torch.float16, torch.bfloat16)

NEEDS_COMPILER = pytest.mark.skipif(shutil.which("g++") is None, reason="needs g++")


def sources() -> list[Path]:
    """The kernels, and the shim's own."""
    kernels = (ROOT / "csrc/cuda").glob("*.cu")
    own = (ROOT / "tests/cuda_shim").glob("*.cpp")
    return [path for path in (*sorted(kernels), *sorted(own)) if path.name != "device.cu"]


def _object(source: Path, folder: Path) -> Path:
    return folder / (source.name + ".o")


def _compile(source: Path, folder: Path, common: Path) -> Path:
    """Its object file; headers in ``folder`` come before others, but for the ``common`` one."""
    compiled = _object(source, folder)
    include = [f"-I{path}" for path in (folder, *(ROOT / path for path in INCLUDE))]
    kind = ["-x", "c++", "-c", "-include", str(common)]
    if source == common:
        kind, compiled = ["-x", "c++-header"], folder / f"{common.name}.gch"
    subprocess.run(["g++", *FLAGS, *include, *kind, str(source), "-o", str(compiled)], check=True)
    return compiled


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
    common = folder / "common.h"
    common.write_text("".join(f"#include <{header}>\n" for header in HEADERS))
    _compile(common, folder, common)
    return _link({source.name: _compile(source, folder, common) for source in sources()}, folder)


#: A test of the kernels, and what it is given after them.
Check = tuple[Any, ...]


@functools.cache
def _passes(clean: Kernels, check: Check) -> bool:
    test, *given = check
    test(clean, *given)
    return True


def assert_caught(
    clean: Kernels, source: str, old: str, new: str, check: Check, folder: Path
) -> str:
    """Raise unless a test passes, and fails with the bug; what it then says."""
    (test, *given), (kernel, _, header) = check, source.partition(" ")
    assert _passes(clean, check)
    origin = ROOT / "csrc/include" / header if header else ROOT / "csrc/cuda" / kernel
    clean_text = origin.read_text(encoding="utf-8")
    places = clean_text.count(old)
    assert places == 1, f"{origin.name}: the bug fits {places} places"
    copy = folder / (header or kernel)
    copy.parent.mkdir(exist_ok=True)
    copy.write_text(clean_text.replace(old, new), encoding="utf-8")
    text = ROOT / "csrc/cuda" / kernel if header else copy
    broken = _compile(text, folder, clean.objects[kernel].with_name("common.h"))
    broken = _link(clean.objects | {kernel: broken}, folder)
    with pytest.raises((AssertionError, RuntimeError)) as caught:
        test(broken, *given)
    return str(caught.value)


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

    def pads_are_intact(self) -> bool:
        pads = torch.cat([self.memory[: self.span.start], self.memory[self.span.stop :]])
        return bool((pads.isnan() if self.floating else pads == self.pad).all())


class Kernels:
    """The launchers of a shared library, called as :mod:`free.reference` is."""

    def __init__(self, library: Path, objects: dict[str, Path]) -> None:
        self.objects = objects
        self._doors = ctypes.CDLL(str(library))
        self._doors.shim_call.argtypes = (ctypes.c_char_p, ctypes.c_char_p, ctypes.c_void_p)
        self._doors.shim_call.restype = ctypes.c_char_p
        self._doors.shim_workspace.argtypes = (ctypes.c_char_p, ctypes.c_char_p)
        self._doors.shim_workspace.restype = ctypes.c_int64
        self.shift = 0

    @contextmanager
    def on(self, processors: int = 1, descending: bool = False, shift: int = 0) -> Iterator[None]:
        """On a device of so many processors, threads in another order, tensors not aligned."""
        self._doors.shim_device(processors, descending)
        self.shift = shift
        yield
        self._doors.shim_device(1, False)
        self.shift = 0

    def __getattr__(self, name: str) -> Callable[..., Any]:
        return partial(self._call, name)

    def _call(self, name: str, *args: Any, **kwargs: Any) -> Any:
        contract, door = CONTRACTS[name], name.encode()
        bound = inspect.signature(getattr(reference, name)).bind(*args, **kwargs)
        bound.apply_defaults()
        given = bound.arguments
        guard = partial(_Guarded, shift=self.shift)
        inside = {key: guard(t) for key, t in given.items() if isinstance(t, Tensor)}
        results = [guard(torch.full_like(t, -77)) for t in check(contract, [*given.values()], True)]
        values = given | {key: guarded.tensor for key, guarded in inside.items()}
        written = tuple(guarded.tensor for guarded in results)
        record = _C.record(contract.number, dict(values), written)
        room = self._doors.shim_workspace(door, record)
        space = guard(torch.full((room // 8,), math.nan, dtype=torch.float64))
        if failure := self._doors.shim_call(door, record, space.tensor.data_ptr()):
            raise RuntimeError(failure.decode())
        every = (*inside.values(), *results, space)
        assert all(guarded.pads_are_intact() for guarded in every), "written out of bounds"
        for argument in contract.arguments:
            if argument.written and argument.name in inside:
                given[argument.name].copy_(inside[argument.name].tensor)
        return written[0] if len(written) == 1 else written or None


def same(actual: Sequence[Tensor], expected: Sequence[Tensor], tolerance: float = 0.0) -> None:
    """Raise unless results agree, numbers within the tolerance."""
    for value, other in zip(actual, expected, strict=True):
        limits = {"rtol": tolerance, "atol": tolerance} if value.is_floating_point() else {}
        torch.testing.assert_close(value, other, equal_nan=True, **limits)
