"""The processes that share a run, as ``torchrun`` starts them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist

from free.devices import rank_of_environment

#: Longer than one process may have to wait for another's share of a run.
_TIMEOUT = timedelta(days=7)


@dataclass(frozen=True)
class Processes:
    """Which of how many processes this is.

    ``local_rank`` is its number among those of this machine: the GPU to use. What waits for the
    others raises a RuntimeError if another process has died.
    """

    rank: int = 0
    count: int = 1
    local_rank: int = 0

    @classmethod
    def from_environment(cls) -> Processes:
        """Read what ``torchrun`` says in the environment; one process if it says nothing.

        A ValueError if the environment contradicts itself.
        """
        return cls(*rank_of_environment())

    @contextmanager
    def joined(self) -> Iterator[None]:
        """Connect to the others while inside."""
        if self.count == 1 or dist.is_initialized():
            yield
            return
        dist.init_process_group("gloo", timeout=_TIMEOUT)
        try:
            yield
        finally:
            dist.destroy_process_group()

    def first(self, function: Callable[[], Any]) -> Any:
        """What a function returns that process 0 alone calls; all raise its ValueError."""
        answer: list[Any] = [None, None]
        if self.rank == 0:
            try:
                answer[0] = function()
            except ValueError as error:
                answer[1] = str(error)
        if self.count > 1:
            with _deaths_named():
                dist.broadcast_object_list(answer)
        value, problem = answer
        if problem is not None:
            raise ValueError(problem)
        return value

    def any(self, flags: torch.Tensor) -> torch.Tensor:
        """Where any process has a flag set; bools [R], as the flags."""
        if self.count == 1:
            return flags
        counts = flags.to(torch.int32)
        with _deaths_named():
            dist.all_reduce(counts)
        return counts > 0

    def wait(self, look: Callable[[], object], seconds: float = 0.2) -> None:
        """Wait until all processes are here, calling ``look`` now and then."""
        if self.count == 1:
            return
        with _deaths_named():
            here = dist.barrier(async_op=True)
            while not here.is_completed():
                look()
                time.sleep(seconds)
            here.wait()


@contextmanager
def _deaths_named() -> Iterator[None]:
    """Say what it means that a connection is closed."""
    try:
        yield
    except RuntimeError as error:
        raise RuntimeError(
            "another process of this run has ended early: what it has drawn is kept, run the same "
            "command again for the rest"
        ) from error
