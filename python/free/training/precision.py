"""Precision of the matrix products: which one suits a machine, and working in it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import NamedTuple

import torch

from free.training.parallel import Ranks

PRECISIONS = ("auto", "fp32", "tf32", "bf16")

#: What multiplies bfloat16 at speed: torch's function that asks for it, and /proc/cpuinfo's flag.
_INSTRUCTIONS = {
    "AMX-BF16": ("_is_amx_tile_supported", "amx_bf16"),
    "AVX512-BF16": ("_is_avx512_bf16_supported", "avx512_bf16"),
}
_ANY = " or ".join(_INSTRUCTIONS)

_CPUINFO = Path("/proc/cpuinfo")


class Precision(NamedTuple):
    """A precision, fp32, tf32 or bf16, and why it was taken, in words for a line of output."""

    name: str
    reason: str


def choose_precision(name: str, ranks: Ranks, stored: str | None = None) -> Precision:
    """The precision of a run; all ranks must ask, and get the same.

    ``name`` is one of :data:`PRECISIONS`. ``"auto"`` stays with ``stored``, what the run has been
    in so far. Else it is bf16 where every rank's device multiplies it at speed, else fp32: without
    such instructions a CPU's bf16 takes ten times as long as fp32.
    """
    if name != "auto":
        return Precision(name, "as asked for")
    able, reason = has_bf16(ranks.device)
    if not all(ranks.collect([able])) and able:
        able, reason = False, "another process has no bfloat16 instructions"
    here = "bf16" if able else "fp32"
    if stored is None:
        return Precision(here, reason)
    if stored == here:
        return Precision(stored, "as the run began")
    return Precision(stored, f"as the run began; a new one would take {here} here: {reason}")


def has_bf16(device: torch.device) -> tuple[bool, str]:
    """Whether a device multiplies bfloat16 at speed, and by what."""
    if device.type == "cuda":
        with torch.cuda.device(device):
            able = torch.cuda.is_bf16_supported(including_emulation=False)
        return able, f"the GPU has {'' if able else 'no '}bfloat16 instructions"
    found = [name for name, (probe, flag) in _INSTRUCTIONS.items() if _cpu_has(probe, flag)]
    return bool(found), f"the CPU has {found[0] if found else f'no {_ANY}'}"


def _cpu_has(probe: str, flag: str) -> bool:
    """Whether the CPU has an instruction set: torch says so, or where it cannot, the system."""
    ask = getattr(torch.cpu, probe, None)  # private: a later torch may call it something else
    if ask is not None:
        return bool(ask())
    try:
        lines = _CPUINFO.read_text(encoding="utf-8").splitlines()
    except OSError:
        return False
    return any(flag in line.split() for line in lines if line.startswith("flags"))


@contextmanager
def products_in(name: str, device: torch.device) -> Iterator[Callable[[], torch.autocast]]:
    """Work in a precision while this lasts; yields the context that a forward pass needs.

    A ValueError if the device does not have it.
    """
    if name == "tf32" and device.type != "cuda":
        raise ValueError(f"precision 'tf32' needs a GPU, got device {device}")
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high" if name == "tf32" else "highest")
    try:
        yield partial(torch.autocast, device.type, torch.bfloat16, enabled=name == "bf16")
    finally:
        torch.set_float32_matmul_precision(before)
