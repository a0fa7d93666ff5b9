"""Both policies in closed loop, plain and speculated and with fewer steps, and the figure of it.

    python -m examples.policy.evaluate                     # networks of runs/policy, 100 episodes
    python -m examples.policy.evaluate --only mlp --episodes 400

Success is a return of 200 or more. Episodes of one number begin at the same place and draw the same
noise, whoever flies, so that differences are of pairs. Then chunks are timed, one at a time and in
turn (:mod:`examples.policy.latency`), and both are drawn beside each other.
"""

from __future__ import annotations

import argparse
import shlex
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from examples.policy import latency, picture
from examples.policy.act import Policy
from examples.policy.flights import Flights, fly
from examples.policy.networks import load
from free.evaluation.bootstrap import QUANTILE, wilson_interval
from free.files import write_json
from free.machine import machine

#: Episodes are numbered from here; demonstrations never reach it.
FIRST_SEED = 1_000_000


class Arm(NamedTuple):
    """A way to sample chunks."""

    law: str
    steps: int
    window: int | None = None


#: The full sampler first: the others are compared with it.
ARMS = {
    "DDPM 100": Arm("ddpm", 100),
    "DDPM 100, FREE": Arm("ddpm", 100, 16),
    "DDPM 50": Arm("ddpm", 50),
    "DDPM 25": Arm("ddpm", 25),
    "DDPM 10": Arm("ddpm", 10),
    "DDIM 10": Arm("ddim", 10),
}


def record_of(flights: Flights, full: Flights) -> dict[str, Any]:
    """Figures of an arm, and the paired difference to the full sampler's, with 95 % intervals."""
    solved, count = flights.solved, len(flights.returns)
    gain = flights.returns - full.returns
    changed = solved.astype(float) - full.solved
    record = {
        "success": float(solved.mean()),
        "success_interval": wilson_interval(float(solved.mean()), count),
        "success_difference": interval(changed),
        "return": float(flights.returns.mean()),
        "return_difference": interval(gain),
        "steps": float(flights.steps.mean()),
        "returns": flights.returns.round(2).tolist(),
    }
    if flights.report is not None:
        record["steps_a_round"] = flights.report.parallel_efficiency
    return record


def interval(values: np.ndarray) -> list[float]:
    """Mean of ``values [n]``, and the ends of its 95 % interval."""
    mean, error = float(values.mean()), float(values.std(ddof=1) / len(values) ** 0.5)
    return [mean, mean - QUANTILE * error, mean + QUANTILE * error]


def main(arguments: Sequence[str] | None = None) -> None:
    """Fly, time and draw."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--networks", type=Path, default=Path("runs/policy"), help="%(default)s")
    parser.add_argument("--only", choices=latency.NETWORKS, help="one of the two")
    parser.add_argument(
        "--engine", choices=latency.ENGINES, default="onnxruntime", help="%(default)s"
    )
    parser.add_argument("--episodes", type=int, default=100, help="%(default)s")
    parser.add_argument("--requests", type=int, default=60, help="chunks timed, %(default)s")
    parser.add_argument("--threads", type=int, default=1, help="%(default)s")
    parser.add_argument("--json", type=Path, help="by default evaluation.json beside the networks")
    parser.add_argument("--plot", type=Path, help="by default policy.png beside the networks")
    given = sys.argv[1:] if arguments is None else arguments
    options = parser.parse_args(given)
    torch.set_num_threads(options.threads)
    seeds = range(FIRST_SEED, FIRST_SEED + options.episodes)
    document: dict[str, Any] = {
        "command": shlex.join(["python", "-m", "examples.policy.evaluate", *given]),
        "machine": machine(),
        "episodes": options.episodes,
        "policies": {},
    }
    where = options.json or options.networks / "evaluation.json"
    flown = None
    for name in [options.only] if options.only else latency.NETWORKS:
        network = load(options.networks / f"{name}.safetensors")
        denoise = latency.on_engine(options.engine, network, options.networks / "onnx" / name)
        arms: dict[str, Any] = {}
        full = None
        document["policies"][name] = {"flown": arms}
        for arm, (law, steps, window) in ARMS.items():
            began = time.perf_counter()
            policy = Policy(denoise, network.config, law=law, steps=steps, window=window)
            flights = fly(policy, seeds)
            full = full or flights
            arms[arm] = record_of(flights, full)
            write_json(where, document)
            low, high = arms[arm]["success_interval"]
            print(
                f"{name}, {arm}: success {arms[arm]['success']:.2f} ({low:.2f} to {high:.2f}), "
                f"return {arms[arm]['return']:.0f}, {time.perf_counter() - began:.0f} s",
                flush=True,
            )
        timed = latency.measure(denoise, network.config, options.requests, cost_key=None)
        document["policies"][name]["timed"] = timed
        write_json(where, document)
        flown = flown or Policy(denoise, network.config, window=16)
    plot = options.plot or options.networks / "policy.png"
    picture.draw(document["policies"], flown, plot, seed=FIRST_SEED)
    print(f"{where} and {plot} written")


if __name__ == "__main__":
    main()
