"""Ranks: the processes that share the batches of a run, and what they exchange."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from free.devices import find_device, rank_of_environment


@dataclasses.dataclass(frozen=True)
class Ranks:
    """One process of a run, this one: its number, how many there are, and its networks' device."""

    rank: int = 0
    world: int = 1
    device: torch.device = dataclasses.field(default_factory=lambda: torch.device("cpu"))

    @property
    def first(self) -> bool:
        """Whether this is the one that writes files and speaks."""
        return self.rank == 0

    def rows(self, batch_size: int, micro_batch: int | None = None) -> list[range]:
        """Places of this rank in a batch of all ranks, a range for each pass.

        A pass has ``micro_batch`` rows, by default all of this rank's. A ValueError if the ranks do
        not divide the batch, or the micro-batches a rank's share.
        """
        share, rest = divmod(batch_size, self.world)
        if rest or not share:
            raise ValueError(
                f"batch_size must be a multiple of the number of processes, {self.world}, "
                f"got {batch_size}"
            )
        size = share if micro_batch is None else micro_batch
        if share % size:
            whole = "batch_size" if self.world == 1 else f"batch_size / {self.world} processes"
            raise ValueError(f"micro_batch must divide {whole}, {share}, got {micro_batch}")
        start = self.rank * share
        return [range(at, at + size) for at in range(start, start + share, size)]

    def sum(self, value: Tensor) -> Tensor:
        """``value``, in place, summed over the ranks."""
        if self.world > 1:
            dist.all_reduce(value)
        return value

    def equal(self, value: int) -> bool:
        """Whether all ranks have the same integer."""
        return len(set(self.collect([value]))) == 1

    @torch.no_grad()
    def share_weights(self, model: nn.Module) -> None:
        """Give all ranks the weights of the first."""
        if self.world > 1:
            for value in (*model.parameters(), *model.buffers()):
                dist.broadcast(value, 0)

    def collect(self, values: list[Any]) -> list[Any]:
        """The values of all ranks, in the order of the ranks."""
        if self.world == 1:
            return values
        parts: list[list[Any]] = [[]] * self.world
        dist.all_gather_object(parts, values)
        return [value for part in parts for value in part]

    def wait(self) -> None:
        """Until all ranks are here.

        The last thing before a process ends should be this: gloo's threads hold on to the tensors
        of a sum for a moment, and a tensor of Python's must not be freed when Python is gone.
        """
        if self.world > 1:
            dist.barrier()


@contextmanager
def ranks_of_environment(device: str = "auto") -> Iterator[Ranks]:
    """The ranks that ``torchrun`` has started, or this process alone.

    ``"auto"`` is a GPU where there is one; ``"cuda"`` is the one of this process's local rank. A
    ValueError says why a device is not there.
    """
    rank, world, local = rank_of_environment()
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    chosen = find_device(f"cuda:{local}" if device == "cuda" else device)
    if chosen.type == "cuda":
        torch.cuda.set_device(chosen)
    if world == 1:
        yield Ranks(device=chosen)
        return
    if chosen.type == "cuda":
        dist.init_process_group("nccl", device_id=chosen)
    else:
        dist.init_process_group("gloo")
    try:
        yield Ranks(rank, world, chosen)
    finally:
        dist.destroy_process_group()
