"""What is said when the memory of a GPU is full: what was asked for, and what would need less."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import Any, TypeVar

import torch

from free.devices import device_of

__all__ = ["explained", "explained_sampling", "held"]

Sample = TypeVar("Sample", bound=Callable[..., Any])


@contextmanager
def explained(describe: Callable[[], str]) -> Iterator[None]:
    """Say what was being done where CUDA says that its memory is full.

    Parameters
    ----------
    describe : callable
        Returns the work with its sizes, and what to reduce.

    Raises
    ------
    torch.OutOfMemoryError
        With both; torch's own is its cause, and what callers catch stays the same.
    """
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise torch.OutOfMemoryError(f"{describe()} {error}") from error


def explained_sampling(sample: Sample) -> Sample:
    """The method ``sample`` of a sampler, explained."""

    @wraps(sample)
    def wrapped(self: Any, labels: Any, *arguments: Any, **options: Any) -> Any:
        with explained(lambda: _sampling(self, len(labels))):
            return sample(self, labels, *arguments, **options)

    return wrapped  # type: ignore[return-value]


def _sampling(sampler: Any, batch: int) -> str:
    rule = getattr(sampler, "_windows", None)
    window = 1 if rule is None else min(rule.largest, len(sampler.schedule))
    pair = 1 if sampler.guidance is None else 2
    rows = f"{batch} samples x {window} rows" + (" x 2 for guidance" if pair == 2 else "")
    return (
        f"out of memory in sampling a batch of {batch} with window {window}: teacher calls of up "
        f"to {batch * window * pair} rows ({rows}), {held(device_of(sampler.teacher))}. Fewer "
        "labels a call (batch_size), a smaller window or networks in bfloat16 need less."
    )


def held(device: torch.device | None) -> str:
    """What tensors take on a GPU, by default the current one, in words."""
    on_gpu = device is not None and device.type == "cuda"
    allocated = torch.cuda.memory_allocated(device if on_gpu else None)
    return f"{allocated / 2**30:.2f} GiB allocated"
