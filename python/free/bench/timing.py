"""Interleaved timing that throws away what other processes have disturbed."""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

_TICK = 1.0 / os.sysconf("SC_CLK_TCK")


class Timing(NamedTuple):
    """Statistics of one function's samples; median, iqr and minimum are seconds a call.

    ``discarded`` counts samples that were thrown away because other processes used the CPU
    meanwhile. ``clean`` is False if the machine was too busy to do that: nothing was thrown away,
    minima and ratios of interleaved functions are what can be trusted.
    """

    median: float
    iqr: float
    minimum: float
    samples: int
    discarded: int
    clean: bool


def timed(
    functions: dict[str, Callable[[], Any]],
    repeats: int = 50,
    *,
    calls: int | Mapping[str, int] = 1,
    warmup: int = 3,
    attempts: int = 4,
    tell: Callable[[str, bool], object] = lambda name, kept: None,
) -> dict[str, Timing]:
    """Time functions in turn, so that what happens to the machine happens to all of them.

    Parameters
    ----------
    functions : dict of str to callable
        Called without arguments. What has a GPU work must wait for it, or its time is that of
        asking.
    repeats : int
        Clean samples wanted of each function.
    calls : int or mapping of str to int
        Calls a sample, of each function; a sample should last some clock ticks of /proc/stat
        (10 ms each), or what others do meanwhile goes unseen.
    warmup : int
        Samples of each function that are not kept.
    attempts : int
        At most ``attempts * repeats`` samples are taken. If fewer than half of the wanted ones are
        clean, all of them are used, and the result says so.
    tell : callable
        Gets the name of a function after each sample of it, and whether the sample is kept;
        those of the warm-up are not.

    Returns
    -------
    dict of str to Timing
    """
    clean: dict[str, list[float]] = {name: [] for name in functions}
    dirty: dict[str, list[float]] = {name: [] for name in functions}
    for attempt in range(-warmup, attempts * repeats):
        for name, function in functions.items():
            if len(clean[name]) >= repeats:
                continue
            count = calls if isinstance(calls, int) else calls[name]
            seconds, others = _sample(function, count)
            # /proc/stat counts in ticks: one of them may be rounding.
            kept = attempt >= 0 and others <= max(_TICK, 0.05 * seconds * count)
            if attempt >= 0:
                (clean if kept else dirty)[name].append(seconds)
            tell(name, kept)
    return {name: _timing(clean[name], dirty[name], repeats) for name in functions}


def _sample(function: Callable[[], Any], calls: int) -> tuple[float, float]:
    """Seconds a call, and CPU seconds that other processes used meanwhile."""
    busy, own, start = _busy_seconds(), time.process_time(), time.perf_counter()
    for _ in range(calls):
        function()
    elapsed = time.perf_counter() - start
    others = (_busy_seconds() - busy) - (time.process_time() - own)
    return elapsed / calls, others


def _busy_seconds() -> float:
    """CPU seconds used on this machine by anyone, where the system says so."""
    try:
        fields = Path("/proc/stat").read_text(encoding="ascii").split("\n", 1)[0].split()[1:]
    except OSError:
        return time.process_time()
    user, nice, system, _idle, _iowait, irq, softirq, steal = map(int, fields[:8])
    return (user + nice + system + irq + softirq + steal) * _TICK


def _timing(clean: list[float], dirty: list[float], repeats: int) -> Timing:
    enough = len(clean) >= max(2, repeats // 2)
    samples = clean if enough else clean + dirty
    quarter, median, three_quarters = statistics.quantiles(samples, n=4)
    return Timing(
        median=median,
        iqr=three_quarters - quarter,
        minimum=min(samples),
        samples=len(samples),
        discarded=len(dirty) if enough else 0,
        clean=enough,
    )
