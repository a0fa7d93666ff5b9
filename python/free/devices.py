"""Devices: which can be had, where networks are, what their memory held, and when it is full.

Which of several processes takes which, ``torchrun`` says.

Which kernels there are for a device is known in :mod:`free.ops`, not here.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

import torch

#: More threads than any machine has cores: a run may be repeated on a smaller machine than it began
#: on, but tens of thousands of threads end the process.
MOST_THREADS = 1024


class Rank(NamedTuple):
    """Which of how many processes this is; ``local`` is its number on this machine: its GPU."""

    rank: int = 0
    world: int = 1
    local: int = 0


def rank_of_environment() -> Rank:
    """What ``torchrun`` says in the environment; one process if it says nothing.

    A variable that is set to nothing says nothing. A ValueError if they contradict each other.
    """
    names = ("RANK", "WORLD_SIZE", "LOCAL_RANK")
    values = {name: os.environ[name] for name in names if os.environ.get(name, "").strip()}
    if "RANK" not in values and "WORLD_SIZE" not in values:
        return Rank()
    try:
        rank = Rank(int(values["RANK"]), int(values["WORLD_SIZE"]), int(values.get(names[2], 0)))
    except (KeyError, ValueError):
        rank = Rank(0, 0, 0)
    if not (0 <= rank.rank < rank.world and rank.local >= 0):
        raise ValueError(f"{', '.join(names)} must be as torchrun sets them, got {values}")
    return rank


def find_device(name: torch.device | str, argument: str = "device") -> torch.device:
    """A device that torch can work on here.

    Raises ValueError, which calls it ``argument``, if torch cannot put a tensor there; says why,
    and what helps.
    """
    try:
        device = torch.device(name)
        torch.empty(0, dtype=torch.float32, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:  # torch raises all three
        reason = str(error).splitlines()[0]
        if reason.startswith("Expected one of"):
            reason = "expected cpu, cuda or cuda:0, say"
        elif "cuda" in str(name) and torch.version.cuda is None:
            reason = (
                "Torch not compiled with CUDA enabled: take cpu, or install a torch that is built "
                "with CUDA (pytorch.org)"
            )
        raise absent(argument, name, reason) from error
    return device


def absent(argument: str, name: torch.device | str, reason: str) -> ValueError:
    """The error for a device that cannot be had."""
    return ValueError(f"{argument} must be one that this machine has, got {str(name)!r}: {reason}")


def device_of(network: Any) -> torch.device | None:
    """Where a network is: a module's first weight, else its attribute ``device``, else None."""
    if isinstance(network, torch.nn.Module):
        weight = next(network.parameters(), None)
        if weight is not None:
            return weight.device
    device = getattr(network, "device", None)
    return None if device is None else torch.device(device)


def require_device(device: torch.device, **networks: Any) -> None:
    """Refuse networks that are not where the states are, the teacher's ``device``.

    It is the labels' if the teacher does not tell. ``networks`` go by the name that an error calls
    them; those that do not tell where they are pass. Raises ValueError naming both devices.
    """
    for name, network in networks.items():
        place = device_of(network)
        if place is not None and not _same(place, device):
            raise ValueError(
                f"{name} must be on the device of teacher and states, {device}, got {place}"
            )


def _same(one: torch.device, other: torch.device) -> bool:
    """Whether two devices are one; without an index it is the current one, which may be any."""
    return one.type == other.type and (None in (one.index, other.index) or one.index == other.index)


def reset_peak(device: torch.device) -> None:
    """Forget the peak of memory so far."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        return
    with suppress(OSError):  # then there is none to be read either, or it is the whole run's
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")


def peak(device: torch.device) -> int | None:
    """Most bytes since the reset: of tensors on a GPU, else of the process; None if unknown."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    try:
        lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    sizes = [line.split()[1] for line in lines if line.startswith("VmHWM:")]
    return 1024 * int(sizes[0]) if sizes else None


@contextmanager
def explain_out_of_memory(describe: Callable[[], str]) -> Iterator[None]:
    """Say what was being done where CUDA says that its memory is full.

    ``describe()`` returns the work with its sizes, and what to reduce. The torch.OutOfMemoryError
    that is raised has both; torch's own is its cause, and what callers catch stays the same.
    """
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise torch.OutOfMemoryError(f"{describe()} {error}") from error


def allocated(device: torch.device | None) -> str:
    """What tensors take on a GPU, by default the current one, in words."""
    on_gpu = device is not None and device.type == "cuda"
    taken = torch.cuda.memory_allocated(device if on_gpu else None)
    return f"{taken / 2**30:.2f} GiB allocated"
