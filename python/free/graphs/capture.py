"""Capturing a function of static tensors."""

from __future__ import annotations

from collections.abc import Callable

import torch

__all__ = ["Capture", "CaptureError", "captured"]

#: Makes of a function one that repeats its work on the device.
Capture = Callable[[Callable[[], object], torch.device], Callable[[], object]]

#: Calls before the capture, in which libraries choose their algorithms and make their workspaces.
_WARM_UP = 3


class CaptureError(RuntimeError):
    """What cannot become a graph; says why."""


def captured(function: Callable[[], object], device: torch.device) -> Callable[[], object]:
    """A CUDA graph of what ``function`` launches; each call replays it on the current stream.

    Parameters
    ----------
    function : callable
        Reads and writes tensors that live as long as the graph. Whatever it allocates by itself is
        gone when it returns. It is called four times.
    device : torch.device

    Returns
    -------
    callable

    Raises
    ------
    CaptureError
        If something in it waits for the device or uses another; with CUDA's own words.
    """
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.device(device):
        # Libraries make their workspaces by stream: the same one for both.
        stream = torch.cuda.Stream(device)
        stream.wait_stream(torch.cuda.current_stream(device))
        with torch.cuda.stream(stream):
            for _ in range(_WARM_UP):
                function()
        torch.cuda.current_stream(device).wait_stream(stream)
        try:
            # "thread_local": other threads may go on allocating meanwhile.
            with torch.cuda.graph(graph, stream=stream, capture_error_mode="thread_local"):
                function()
        except torch.cuda.OutOfMemoryError:
            raise
        except RuntimeError as error:
            reason = str(error).strip().splitlines()[0]
            raise CaptureError(f"CUDA could not capture a round: {reason}") from error
    return graph.replay
