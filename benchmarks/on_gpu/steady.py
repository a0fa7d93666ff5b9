"""The steady loop: what the host calls in a round, and memory over 10,000 of them.

Calls are counted in a profiler's trace of two runs of different lengths; what a run costs once
falls out of their difference.
"""

from __future__ import annotations

import gc
import re
from collections import Counter
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

from free import DiT, Schedule, load_pretrained
from free.drafters import FeatureDrafter
from on_gpu.bench import Bench
from on_gpu.samplers import Draws, sampler_of

WINDOW, SWEEPS, GUIDANCE = 8, 1, (1.5, None)
STEPS, ROUNDS = (100, 400), 10_000
SMALL_STEPS, SMALL_ROUNDS = (3, 6), 6
#: Calls that wait for the device. Torch follows a copy to pageable memory by the first.
WAITING = ("cudaStreamSynchronize", "cudaDeviceSynchronize", "cudaEventSynchronize", "cudaMemcpy")
#: Of CUDA's runtime or driver; some profilers add the version of the call.
_CALL = re.compile(r"(cu(?:da)?[A-Z][A-Za-z]+)(_v\d+)?$")


def run(bench: Bench, record: dict[str, Any]) -> None:
    """Fill ``plain`` and ``speculative``, the host's calls, and ``memory``."""
    teacher, drafter = load_pretrained("mnist", device=bench.device)
    assert isinstance(drafter, FeatureDrafter)
    for name, window in (("plain", 1), ("speculative", WINDOW)):
        if not bench.allows(f"calls of the {name} sampler"):
            continue
        with bench.attempt(f"calls of the {name} sampler"):
            short, long = (
                _draws(bench, teacher, drafter, steps, window)
                for steps in (SMALL_STEPS if bench.small else STEPS)
            )
            found = waits(*(_counted(bench, draw) for draw in (short, long)))
            record[name] = {"execution": long.reports[-1].execution} | found
            calls = ", ".join(f"{call} {n:.2f}" for call, n in found["calls_a_round"].items())
            print(
                f"{name} sampler, {record[name]['execution']}: {found['waits_a_round']:.3f} waits "
                f"a round; calls of CUDA: {calls or 'none'}",
                flush=True,
            )
    with bench.attempt("memory"):
        steps = (SMALL_STEPS if bench.small else STEPS)[0]
        draw = _draws(bench, teacher, drafter, steps, WINDOW)
        record["memory"] = memory = _memory(bench, draw)
        found = "not measured"
        if memory["before"] is not None:
            found = ", ".join(
                f"{n / 2**20:.1f} MiB {what} before, {memory['after'][what] / 2**20:.1f} after"
                for what, n in memory["before"].items()
            )
        print(f"memory over {memory['rounds']} rounds: {found}", flush=True)


def _draws(bench: Bench, teacher: DiT, drafter: FeatureDrafter, steps: int, window: int) -> Draws:
    """A sampler that has run before."""
    sampler = sampler_of(teacher, drafter, Schedule.ddpm(steps), GUIDANCE, window, SWEEPS)
    draw = Draws(sampler, 1, teacher.num_classes, bench.clock())
    for _ in range(2):
        draw()
    return draw


def _counted(bench: Bench, draw: Draws) -> tuple[Counter[str], int]:
    """Calls of CUDA's runtime in one run, by name, and its rounds."""
    activities = [ProfilerActivity.CPU]
    if bench.device.type == "cuda":
        activities.append(ProfilerActivity.CUDA)
    with profile(activities=activities) as profiler:
        draw()
    return calls_of(profiler.events() or []), draw.reports[-1].rounds


def calls_of(events: Any) -> Counter[str]:
    """Calls of CUDA among a profiler's events."""
    found = (_CALL.match(event.name) for event in events)
    return Counter(call[1] for call in found if call)


def waits(short: tuple[Counter[str], int], long: tuple[Counter[str], int]) -> dict[str, Any]:
    """Calls a round: what the longer run has more, over the rounds that it has more; and how many
    of them wait.
    """
    more = long[1] - short[1]
    calls = {name: (long[0][name] - short[0][name]) / more for name in sorted(long[0])}
    return {
        "rounds": [short[1], long[1]],
        "calls_a_round": calls,
        "waits_a_round": sum(calls.get(name, 0.0) for name in WAITING),
    }


def _memory(bench: Bench, draw: Draws) -> dict[str, Any]:
    """Bytes of tensors, and bytes that torch holds, before and after so many rounds."""
    wanted, rounds = SMALL_ROUNDS if bench.small else ROUNDS, 0
    before = _bytes(bench.device)
    while rounds < wanted and bench.allows(f"rounds {rounds} to {wanted} of memory"):
        draw()
        rounds += draw.reports.pop().rounds
    after = _bytes(bench.device)
    flat = None
    if before is not None and after is not None and rounds >= wanted:
        flat = all(after[what] <= before[what] for what in before)
    return {"rounds": rounds, "before": before, "after": after, "flat": flat}


def _bytes(device: torch.device) -> dict[str, int] | None:
    if device.type != "cuda":
        return None
    gc.collect()
    return {
        "allocated": torch.cuda.memory_allocated(device),
        "reserved": torch.cuda.memory_reserved(device),
    }
