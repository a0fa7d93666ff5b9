"""How long the control loop waits for a chunk: plain and speculated on one engine, in turn.

    python -m examples.policy.latency --json benchmarks/results/policy-1.json
    python -m examples.policy.latency --threads 2 --json benchmarks/results/policy-2.json
    python -m examples.policy.latency --untrained --only mlp --requests 5    # a trial: no figures

One request at a time (batch 1), at places that a pilot's flight passes. All samplers answer the
same request before the next one is made, so that what happens to the machine happens to all. Of the
JSON, `waits` are milliseconds of a chunk over all requests, `undisturbed` those during which no
other process took the core, `cpu` what the process itself computed; `parts` are milliseconds of a
round, `rows` the network's calls, `predicted` what follows from those for more cores. Other work
on the machine takes the weights out of the cache, and calls of one row become as slow as those of
many: ratios of such runs are no figures.
"""

from __future__ import annotations

import argparse
import resource
import shlex
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

import free
from examples.policy.act import Policy
from examples.policy.engine import on_onnxruntime
from examples.policy.flights import seen_by_pilot
from examples.policy.networks import Denoiser, PolicyConfig, build, load
from examples.policy.sampler import Denoise
from examples.policy.train import CONFIGS
from free.files import write_json
from free.machine import machine

NETWORKS = tuple(CONFIGS)
ENGINES = ("onnxruntime", "torch")
#: Samplers by name: settings of :class:`Policy`. The first is what others are compared with.
SAMPLERS: dict[str, dict[str, Any]] = {
    "DDPM 100": {},
    "DDPM 100, by hand": {"law": "ddpm by hand"},
    "DDPM 100, FREE 8": {"window": 8},
    "DDPM 100, FREE 16": {"window": 16},
    "DDPM 100, FREE auto": {"window": "auto"},
    "DDPM 50": {"steps": 50},
    "DDPM 50, FREE auto": {"steps": 50, "window": "auto"},
    "DDPM 25": {"steps": 25},
    "DDPM 25, FREE auto": {"steps": 25, "window": "auto"},
    "DDPM 10": {"steps": 10},
    "DDPM 10, FREE auto": {"steps": 10, "window": "auto"},
    "DDIM 10": {"steps": 10, "law": "ddim"},
}
#: Rows of a network's call that are timed.
ROWS = (1, 2, 4, 8, 16, 32)
#: Requests before those that count: an automatic window measures its costs at the first.
WARM_UP = 3


def measure(
    denoise: Denoise, config: PolicyConfig, requests: int, cost_key: Any = None
) -> dict[str, Any]:
    """Time chunks of all samplers on one engine, and the network's calls."""
    policies = {
        name: Policy(denoise, config, cost_key=cost_key, **settings)
        for name, settings in SAMPLERS.items()
        if settings.get("steps", 0) <= config.steps
    }
    observations = seen_by_pilot(requests + WARM_UP, config.history)
    waits: dict[str, list[tuple[float, float, int]]] = {name: [] for name in policies}
    reports: dict[str, list[free.Report]] = {name: [] for name in policies}
    for number, seen in enumerate(observations):
        for name, policy in policies.items():
            wait = timed(lambda policy=policy: policy.plan(seen[None], [number]))  # noqa: B023
            if number >= WARM_UP:
                waits[name].append(wait)
                if policy.report is not None:
                    reports[name].append(policy.report)
    rows, first = rows_of(denoise, config), next(iter(policies))
    samplers = {
        name: summary(waits[name], waits[first], reports[name], config) for name in policies
    }
    for name, settings in SAMPLERS.items():
        if name in samplers and settings.get("window") and "steps" not in settings:
            samplers[name]["predicted"] = predicted(samplers[name], samplers[first], rows)
    return {"rows": rows, "samplers": samplers}


def timed(call: Callable[[], Any]) -> tuple[float, float, int]:
    """Milliseconds of a call, those that the process computed, and how often it lost the core."""
    lost = resource.getrusage(resource.RUSAGE_SELF).ru_nivcsw
    cpu, began = time.process_time(), time.perf_counter()
    call()
    wall, cpu = time.perf_counter() - began, time.process_time() - cpu
    return 1e3 * wall, 1e3 * cpu, resource.getrusage(resource.RUSAGE_SELF).ru_nivcsw - lost


def summary(
    waits: list[tuple[float, float, int]],
    first: list[tuple[float, float, int]],
    reports: list[free.Report],
    config: PolicyConfig,
) -> dict[str, Any]:
    """Figures of a sampler; speed-ups are ratios of medians to the first's."""
    wall, cpu, lost = (np.array(column) for column in zip(*waits, strict=True))
    base_wall, base_cpu, base_lost = (np.array(column) for column in zip(*first, strict=True))
    record: dict[str, Any] = {
        "waits": percentiles(wall),
        "chunks_a_second": 1e3 / float(wall.mean()),
        "actions_a_second": 1e3 * config.execute / float(wall.mean()),
        "speed_up": float(np.median(base_wall) / np.median(wall)),
        "cpu": percentiles(cpu),
        "cpu_speed_up": float(np.median(base_cpu) / np.median(cpu)),
    }
    if (lost == 0).any() and (base_lost == 0).any():
        calm, base = wall[lost == 0], base_wall[base_lost == 0]
        record["undisturbed"] = percentiles(calm) | {"share": float((lost == 0).mean())}
        record["undisturbed_speed_up"] = float(np.median(base) / np.median(calm))
    if reports:
        merged = free.Report.merge(reports)
        record["steps_a_round"] = merged.parallel_efficiency
        record["rows_a_round"] = merged.teacher_rows / merged.rounds
        record["acceptance"] = merged.acceptance if merged.proposed else None
        parts = {name: 1e3 * s / merged.rounds for name, s in merged.seconds_by_phase.items()}
        record["parts"] = parts | {"all": 1e3 * merged.seconds / merged.rounds}
    return record


def percentiles(milliseconds: np.ndarray) -> dict[str, float]:
    """Median, 5th, 95th and 99th percentile, largest, and the 95th over the median."""
    names, at = ("p5", "median", "p95", "p99", "max"), (5, 50, 95, 99, 100)
    found = dict(zip(names, np.percentile(milliseconds, at).tolist(), strict=True))
    return found | {"p95_over_median": found["p95"] / found["median"]}


def rows_of(denoise: Denoise, config: PolicyConfig, repeats: int = 40) -> dict[str, float]:
    """Milliseconds of the network's call by rows: the shortest of several, sizes in turn."""
    best = dict.fromkeys(ROWS, float("inf"))
    for _ in range(repeats):
        for rows in ROWS:
            x = torch.randn(rows, config.horizon, config.actions)
            t = torch.full((rows,), config.steps // 2)
            seen = torch.zeros(rows, config.history, config.numbers)
            wall, _, _ = timed(lambda x=x, t=t, seen=seen: denoise(x, t, seen))
            best[rows] = min(best[rows], wall)
    return {str(rows): milliseconds for rows, milliseconds in best.items()}


def predicted(
    record: dict[str, Any], plain: dict[str, Any], rows: dict[str, float]
) -> dict[str, float]:
    """Speed-ups that follow from a sampler's steps a round, the calls' times and what is beside.

    ``record`` and ``plain`` are summaries, ``rows`` is :func:`rows_of`'s. Of ``n`` cores each is
    taken to do its share of the rows, at least one, as fast as here alone, which is the best that
    more cores can do; on a GPU a call of all rows as long as one of one row.
    """
    knots, times = [int(count) for count in rows], list(rows.values())

    def rest(summary: dict[str, Any]) -> float:
        return float(summary["parts"]["all"] - summary["parts"]["teacher"])

    def speed_up(share: float) -> float:
        call = float(np.interp(max(share, 1.0), knots, times))
        return record["steps_a_round"] * (times[0] + rest(plain)) / (call + rest(record))

    width = record["rows_a_round"]
    return {f"{n} cores": speed_up(width / n) for n in (1, 8, 16)} | {"rows free": speed_up(1)}


def main(arguments: Sequence[str] | None = None) -> None:
    """Time both networks on the engines, and write what was found."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--networks", type=Path, default=Path("runs/policy"), help="%(default)s")
    parser.add_argument("--untrained", action="store_true", help="random weights instead")
    parser.add_argument("--only", choices=NETWORKS, help="one of the two")
    parser.add_argument("--engine", choices=ENGINES, help="one of the two")
    parser.add_argument("--requests", type=int, default=100, help="chunks timed, %(default)s")
    parser.add_argument("--threads", type=int, default=1, help="%(default)s")
    parser.add_argument("--json", type=Path)
    given = sys.argv[1:] if arguments is None else arguments
    options = parser.parse_args(given)
    torch.set_num_threads(options.threads)
    found: dict[str, Any] = {}
    for name in [options.only] if options.only else NETWORKS:
        path = options.networks / f"{name}.safetensors"
        network = build(CONFIGS[name]).eval() if options.untrained else load(path)
        for engine in [options.engine] if options.engine else ENGINES:
            with tempfile.TemporaryDirectory() as folder:
                denoise = on_engine(engine, network, Path(folder))
                found[f"{name}, {engine}"] = measure(denoise, network.config, options.requests)
            show(f"{name}, {engine}", found[f"{name}, {engine}"])
    if options.json:
        write_json(
            options.json,
            {
                "command": shlex.join(["python", "-m", "examples.policy.latency", *given]),
                "machine": machine(),
                "requests": options.requests,
                "found": found,
            },
        )


def on_engine(engine: str, network: Denoiser, folder: Path) -> Denoise:
    """The network on one of :data:`ENGINES`; what that needs is written into ``folder``."""
    return on_onnxruntime(network, folder) if engine == "onnxruntime" else network


def show(title: str, found: dict[str, Any]) -> None:
    """Print a table."""
    rows = ", ".join(f"{rows}: {ms:.2f}" for rows, ms in found["rows"].items())
    print(f"\n{title}: ms of a call by rows {rows}")
    for name, record in found["samplers"].items():
        waits, cpu = record["waits"], record["cpu"]
        steps = record.get("steps_a_round")
        print(
            f"  {name:20s} median {waits['median']:7.1f} ms, p95 / median "
            f"{waits['p95_over_median']:5.2f}, {record['chunks_a_second']:6.1f} chunks/s, x "
            f"{record['speed_up']:5.2f}; computed {cpu['median']:7.1f} ms, x "
            f"{record['cpu_speed_up']:5.2f}" + (f"; {steps:.1f} steps a round" if steps else "")
        )


if __name__ == "__main__":
    main()
