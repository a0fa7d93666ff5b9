"""What runs on a GPU: kernels, teacher rows, whole samplers, and what follows from them.

    python benchmarks/gpu.py --json benchmarks/results/gpu.json
    python benchmarks/gpu.py --sections kernels,embedded --minutes 4
    python benchmarks/gpu.py --sections rows,predicted --steps-a-round 4:3.6,8:6.2
    python benchmarks/gpu.py --device cpu --small          # a trial without a GPU: no figures

Sections: `kernels` (each against its torch twin and a copy), `rows` (r_W of published sizes),
`embedded` (the embedded model, wall-clock), `largest` (a round at DiT-XL/2's shapes), `steady` (the
host's calls, memory), `policies` (the control loop of examples/policy, whose networks must be
trained), `predicted` (speed-ups that follow from `rows`). They share the time; what is not started
before it is up is named. The JSON is written after each.
"""

from __future__ import annotations

import argparse
import gc
import shlex
import subprocess
import sys
import time
from collections.abc import Sequence
from typing import Any

import torch

from free.devices import find_device
from free.files import check_writable, write_json
from free.machine import machine
from free.ops import build_info
from on_gpu import embedded, kernels, largest, policies, predicted, rows, steady
from on_gpu.bench import Bench
from on_gpu.targets import judge, line

#: In this order, and how much of the time each has, relative to those that come after it.
SECTIONS = {
    "kernels": (kernels.run, 25),
    "rows": (rows.run, 30),
    "embedded": (embedded.run, 30),
    "largest": (largest.run, 5),
    "steady": (steady.run, 10),
    "policies": (policies.run, 10),
    "predicted": (predicted.run, 1),
}


def main(arguments: Sequence[str] | None = None) -> int:
    given = sys.argv[1:] if arguments is None else arguments
    options = _options(given)
    device = find_device(options.device, "--device")
    torch.set_num_threads(1)
    if device.type == "cuda":
        torch.cuda.set_device(device)
        gc.freeze()  # torch collects garbage before each capture; what is imported is none
        _wake(device)
    bench = Bench(device, options)
    document: dict[str, Any] = {
        "machine": machine() | on_gpu(device),
        "command": shlex.join(["python", "benchmarks/gpu.py", *given]),
        "settings": {k: v for k, v in vars(options).items() if k != "json"},
        "sections": bench.record,
        "targets": [],
    }
    measured_on_gpu = device.type == "cuda" and not options.small
    shares = [SECTIONS[name][1] for name in options.sections]
    for index, name in enumerate(options.sections):
        print(f"\n== {name} ==", flush=True)
        began = time.perf_counter()
        record = bench.section(name, shares[index] / sum(shares[index:]))
        with bench.attempt(name):
            SECTIONS[name][0](bench, record)
        record["seconds"] = time.perf_counter() - began
        for left in record["left_out"]:
            print(f"left out: {left}")
        document["targets"] = judge(bench.record, measured_on_gpu)
        if options.json:
            write_json(options.json, document)

    print("\n== targets ==")
    for verdict in document["targets"]:
        print(line(verdict))
    errors = [f"{name}: {e}" for name, record in bench.record.items() for e in record["errors"]]
    for error in errors:
        print(f"error: {error}", file=sys.stderr)
    return 1 if errors else 0


def _options(given: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", metavar="PATH", help="write the results here")
    parser.add_argument(
        "--sections", default=",".join(SECTIONS), help="which, separated by commas (%(default)s)"
    )
    parser.add_argument("--device", default="cuda", help="(%(default)s)")
    parser.add_argument(
        "--minutes", type=float, default=7.5, help="nothing is begun after so long (%(default)s)"
    )
    parser.add_argument(
        "--policies", metavar="DIR", default="runs/policy", help="trained ones (%(default)s)"
    )
    parser.add_argument("--small", action="store_true", help="tiny shapes: a trial, no figures")
    parser.add_argument(
        "--steps-a-round",
        metavar="W:STEPS,...",
        help="of predictions; default: the embedded model's, from benchmarks/results/rounds.json",
    )
    options = parser.parse_args(given)
    wanted = options.sections.split(",")
    if unknown := [name for name in wanted if name not in SECTIONS]:
        parser.error(f"--sections must be of {', '.join(SECTIONS)}, got {unknown[0]}")
    options.sections = [name for name in SECTIONS if name in wanted]
    if "predicted" in wanted and "rows" not in wanted:
        parser.error("--sections must have rows where it has predicted, got " + ",".join(wanted))
    if not options.minutes > 0:
        parser.error(f"--minutes must be positive, got {options.minutes}")
    try:
        if options.steps_a_round:
            predicted.parse(options.steps_a_round)
        if options.json:
            check_writable(options.json, "--json")
        device = find_device(options.device, "--device")
    except ValueError as error:
        parser.error(str(error))
    if device.type == "cuda" and build_info()["cuda"] is None:
        parser.error("--device cuda needs a build with CUDA, got one without (docs/cuda.md)")
    return options


def _wake(device: torch.device, seconds: float = 0.5) -> None:
    """Keep the GPU busy for a while: at rest its clocks are low."""
    x, until = torch.rand(2048, 2048, device=device), time.perf_counter() + seconds
    while time.perf_counter() < until:
        (x @ x).sum().item()


def on_gpu(device: torch.device) -> dict[str, Any]:
    """What figures of a GPU must be read with."""
    if device.type != "cuda":
        return {"driver": None}
    properties = torch.cuda.get_device_properties(device)
    return {
        "device": torch.cuda.get_device_name(device),
        "capability": list(torch.cuda.get_device_capability(device)),
        "processors": properties.multi_processor_count,
        "memory": properties.total_memory,
        "l2_cache": getattr(properties, "L2_cache_size", None),
        "cuda": torch.version.cuda,
        "driver": _driver(),
    }


def _driver() -> str | None:
    """The driver's version, as nvidia-smi says it; torch does not."""
    query = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        done = subprocess.run(query, capture_output=True, text=True, check=True, timeout=20)
    except (OSError, subprocess.SubprocessError):
        return None
    return next(iter(done.stdout.split()), None)


if __name__ == "__main__":
    sys.exit(main())
