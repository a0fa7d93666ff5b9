"""Capturing a function of static tensors."""

from __future__ import annotations

from collections.abc import Callable
from threading import Lock
from typing import Any

import torch

#: Makes of a function one that repeats its work on the device.
Capture = Callable[[Callable[[], object], torch.device], Callable[[], object]]

#: Calls before the capture, in which libraries choose their algorithms and make their workspaces.
_WARM_UP = 3

#: While one thread captures, CUDA forbids others to wait for the whole device, as beginning a
#: capture does.
_CAPTURING = Lock()

#: torch's allocator goes on asking graphs whose capture has failed: they must not go away.
_FAILED: list[torch.cuda.CUDAGraph] = []


class CaptureError(RuntimeError):
    """What cannot become a graph; says why."""


class CudaGraphs:
    """Captures functions as CUDA graphs, which share memory: no two of them may run at once."""

    def __init__(self) -> None:
        self._pools: dict[torch.device, Any] = {}

    def __call__(
        self, function: Callable[[], object], device: torch.device
    ) -> Callable[[], object]:
        """A CUDA graph of what ``function`` launches; each call replays it on the current stream.

        The function is called four times. It reads and writes tensors that live as long as the
        graph; whatever else it allocates is gone when it returns. Raises CaptureError, with CUDA's
        own words, if something in it waits for the device or uses another.
        """
        graph = torch.cuda.CUDAGraph()
        with _CAPTURING, torch.cuda.device(device):
            pool = self._pools.setdefault(device, torch.cuda.graph_pool_handle())
            before = torch.cuda.current_stream(device)
            # Libraries make their workspaces by stream: the same one for both.
            stream = torch.cuda.Stream(device)
            stream.wait_stream(before)
            with torch.cuda.stream(stream):
                for _ in range(_WARM_UP):
                    function()
            before.wait_stream(stream)
            try:
                # "thread_local": other threads may go on allocating meanwhile.
                with torch.cuda.graph(
                    graph, pool=pool, stream=stream, capture_error_mode="thread_local"
                ):
                    function()
            except torch.cuda.OutOfMemoryError:
                raise
            except RuntimeError as error:
                _FAILED.append(graph)
                raise CaptureError(f"CUDA could not capture a round: {_cause(error)}") from error
            finally:
                torch.cuda.set_stream(before)  # which a capture that failed has not done
        return graph.replay


def _cause(error: BaseException) -> str:
    """What went wrong first; that a capture had to end is said later."""
    while error.__context__ is not None:
        error = error.__context__
    return str(error).strip().splitlines()[0]
