"""How long device work takes: called from the host one by one, and replayed as a CUDA graph.

On a CPU the host's clock stands in and nothing is captured, so that what times with it can be
tried out there.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import torch

Work = Callable[[], Any]

#: Replays a sample, one after the other.
_REPLAYS = 3


class Time(NamedTuple):
    """Statistics of some samples: seconds a call."""

    median: float
    iqr: float
    minimum: float
    samples: int
    calls: int  # a sample


class Clock:
    """Times work on a device.

    Parameters
    ----------
    device : torch.device
    samples : int
    sample_seconds : float
        What a sample should last, by the calls in it.
    most_calls : int
        In a sample, and in a graph.
    """

    def __init__(
        self,
        device: torch.device,
        samples: int = 10,
        sample_seconds: float = 4e-3,
        most_calls: int = 100,
    ) -> None:
        self.device = device
        self._samples = samples
        self._sample_seconds = sample_seconds
        self._most_calls = most_calls
        # One for all captures: libraries keep a workspace for each stream that they have seen.
        self._stream = torch.cuda.Stream(device) if device.type == "cuda" else None

    def synchronize(self) -> None:
        """Wait for the device."""
        if self._stream is not None:
            torch.cuda.synchronize(self.device)

    def called(self, work: Work) -> Time:
        """Calls from the host, one after the other: host or device, whichever is slower."""
        for _ in range(2):  # libraries choose and compile on first use
            work()
        calls = self._fitting(self._span(work, 3))
        return _statistics([self._span(work, calls) for _ in range(self._samples)], calls)

    def replayed(self, work: Work) -> Time | str:
        """Calls in a CUDA graph, which the host replays: the device alone. Or why there is none."""
        if self._stream is None:
            return f"no CUDA graphs on {self.device.type}"
        work()
        calls = self._fitting(self._span(work, 3))
        try:
            graph = self._capture(work, calls)
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:
            return f"cannot be captured: {first_line(error)}"
        samples = []
        for _ in range(self._samples):
            # While this one runs, the host gets ahead; else its own time would be seen as well.
            graph.replay()
            samples.append(self._span(graph.replay, _REPLAYS) / calls)
        self.synchronize()  # before the graph's memory goes
        return _statistics(samples, calls * _REPLAYS)

    def _fitting(self, seconds: float) -> int:
        return max(1, min(self._most_calls, round(self._sample_seconds / max(seconds, 1e-9))))

    def _span(self, work: Work, calls: int) -> float:
        """Seconds a call, of so many."""
        if self._stream is None:
            began = time.perf_counter()
            for _ in range(calls):
                work()
            return (time.perf_counter() - began) / calls
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        for _ in range(calls):
            work()
        end.record()
        end.synchronize()
        return start.elapsed_time(end) / 1e3 / calls

    def _capture(self, work: Work, calls: int) -> torch.cuda.CUDAGraph:
        """As torch's notes on CUDA graphs ask: warmed up on the stream that is then captured."""
        assert self._stream is not None
        self._stream.wait_stream(torch.cuda.current_stream(self.device))
        with torch.cuda.stream(self._stream):
            for _ in range(3):
                work()
        torch.cuda.current_stream(self.device).wait_stream(self._stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, stream=self._stream):
            for _ in range(calls):
                work()
        return graph


def _statistics(samples: list[float], calls: int) -> Time:
    median = statistics.median(samples)
    iqr = 0.0
    if len(samples) > 1:
        quarter, _, three_quarters = statistics.quantiles(samples, n=4)
        iqr = three_quarters - quarter
    return Time(median, iqr, min(samples), len(samples), calls)


def as_json(found: Time | str) -> dict[str, Any] | str:
    """A time, or the reason why there is none, as JSON takes it."""
    return found if isinstance(found, str) else found._asdict()


def first_line(error: BaseException) -> str:
    """What an error says, in a line."""
    return next(iter(str(error).splitlines()), "") or type(error).__name__
