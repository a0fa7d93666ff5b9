"""Where the time of a round goes: by phase, and by operator within a phase."""

from __future__ import annotations

import errno
import gzip
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch.profiler import ProfilerActivity, record_function

from free.devices import device_of
from free.files import write_atomic
from free.rounds.report import PHASE_MARK, Report
from free.sampling.sequential import SequentialSampler
from free.sampling.speculative import SpeculativeSampler

_MARK = "free::"
#: What is outside all phases: choosing windows, the loop itself.
ELSEWHERE = "elsewhere"


class Operator(NamedTuple):
    """One of torch's operators; ``calls`` and ``seconds`` are of a round.

    The seconds are without operators that it calls: on the CPU, or, for networks on a GPU, of the
    kernels there.
    """

    phase: str
    name: str
    calls: float
    seconds: float


class Profile(NamedTuple):
    """Where the time goes.

    Attributes
    ----------
    report : Report
        Of the batches that were timed, without the profiler.
    phases : dict of str to float
        Seconds of a round, the longest first, with what is ``elsewhere``. On a GPU each phase waits
        for its own work, so that what the host could have done meanwhile comes on top.
    operators : list of Operator
        Of one further batch, the longest first; what the profiler itself takes is in there.
    """

    report: Report
    phases: dict[str, float]
    operators: list[Operator]


def profiled(
    sampler: SequentialSampler | SpeculativeSampler,
    batches: Sequence[Sequence[int]],
    seed: int = 0,
    trace: Path | None = None,
    tell: Callable[[int], object] = lambda batches: None,
) -> Profile:
    """Time the phases of batches, then look at the operators of one.

    ``batches`` are their labels; the first is drawn twice more: before, to warm up, and after,
    under torch's profiler. ``trace``, a ``.json`` or ``.json.gz``, is written for Perfetto or
    Chrome's ``about:tracing``. ``tell`` gets 1 after each batch. A ValueError if there is no
    batch.
    """
    if not batches:
        raise ValueError("batches must be at least one, got none")

    def draw(batch: Sequence[int]) -> Report:
        report = sampler.sample(batch, seed).report
        tell(1)
        return report

    device = device_of(sampler.teacher) or torch.device("cpu")
    on_gpu = device.type == "cuda"
    draw(batches[0])
    with _around_phases(partial(_wait_after, device) if on_gpu else nullcontext):
        report = Report.merge([draw(batch) for batch in batches])
    phases = {name: spent / report.rounds for name, spent in report.seconds_by_phase.items()}
    phases[ELSEWHERE] = max(report.seconds / report.rounds - sum(phases.values()), 0.0)
    activities = [ProfilerActivity.CPU]
    if on_gpu:
        activities.append(ProfilerActivity.CUDA)
    with _around_phases(_mark), torch.profiler.profile(activities=activities) as profiler:
        rounds = draw(batches[0]).rounds
    if trace is not None:
        write_atomic(trace, lambda path: _export(profiler, path))
    return Profile(
        report,
        dict(sorted(phases.items(), key=lambda item: -item[1])),
        _operators(profiler.events() or [], rounds, on_gpu),
    )


def _export(profiler: Any, path: Path) -> None:
    """Write a trace.

    An OSError if it is not whole: torch says nothing where a disk is full.
    """
    profiler.export_chrome_trace(str(path))
    Path(f"{path}.tmp").unlink(missing_ok=True)  # torch's own, if it has failed
    with (gzip.open if path.suffix == ".gz" else open)(path, "rb") as file:
        if not file.read().rstrip().endswith(b"}"):
            raise OSError(errno.EIO, "the profiler could not write all of it", str(path))


def _mark(phase: str) -> AbstractContextManager[Any]:
    """Show a phase to the profiler, under its name."""
    return record_function(_MARK + phase)


@contextmanager
def _wait_after(device: torch.device, phase: str) -> Iterator[None]:
    """End a phase when the GPU has done its work."""
    yield
    torch.cuda.synchronize(device)


@contextmanager
def _around_phases(mark: Callable[[str], AbstractContextManager[Any]]) -> Iterator[None]:
    """Put this around each phase of all runs."""
    token = PHASE_MARK.set(mark)
    try:
        yield
    finally:
        PHASE_MARK.reset(token)


def _operators(events: Sequence[Any], rounds: int, on_gpu: bool) -> list[Operator]:
    """Sum events by phase and name; on a GPU those that have kernels."""
    sums: dict[tuple[str, str], list[float]] = {}
    for event in events:
        if event.device_type != torch.autograd.DeviceType.CPU or event.name.startswith(_MARK):
            continue
        above = event
        while above is not None and not above.name.startswith(_MARK):
            above = above.cpu_parent
        phase = ELSEWHERE if above is None else above.name.removeprefix(_MARK)
        total = sums.setdefault((phase, event.name), [0, 0.0])
        total[0] += 1
        total[1] += (event.self_device_time_total if on_gpu else event.self_cpu_time_total) / 1e6
    operators = [
        Operator(phase, name, count / rounds, seconds / rounds)
        for (phase, name), (count, seconds) in sums.items()
        if seconds or not on_gpu
    ]
    return sorted(operators, key=lambda operator: -operator.seconds)
