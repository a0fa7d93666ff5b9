"""What a round costs without its networks, on one CPU thread, and beside another version.

    python benchmarks/round_cost.py --json round_cost.json
    python benchmarks/round_cost.py --before ../other/python    # a folder with another `free`

Teacher and drafter return tensors that are there already, so what is left is the round: noise,
drafting, verification, bookkeeping. Window of 16, one sweep, recycled by response, one image of 250
steps; and the plain sampler's step. Versions are measured in turn, each time in a process of its
own; a figure is the median over the processes of each one's fastest image. Only what
``import free`` offers is used.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

import torch

import free

SIZES = (784, 32)
IMAGES = 15


class Networks:
    """A teacher, and a drafter, that cost nothing."""

    num_classes, null_label = 10, 10

    def __init__(self, size: int) -> None:
        self.sample_shape = (size,)
        self.outputs = [free.TeacherOutput(torch.zeros(rows, size)) for rows in range(64)]

    def __call__(self, x: torch.Tensor, t: torch.Tensor, y: torch.Tensor) -> free.TeacherOutput:
        """The drafter's eps, too: every draft stands."""
        return self.outputs[len(x)]

    def begin(self, batch: object) -> None:
        """Nothing to remember."""

    def carry_from(self, teacher_output: object, rows: torch.Tensor) -> None:
        """No carry."""

    def predict(
        self, x: torch.Tensor, k: torch.Tensor, y: torch.Tensor, carry: None
    ) -> tuple[torch.Tensor, None]:
        """An eps that was there before."""
        return self.outputs[len(x)].eps, None


def measured() -> dict[str, float]:
    """Microseconds of a round: the fastest of some images, for each size and sampler."""
    torch.set_num_threads(1)
    schedule, found = free.Schedule.ddpm(250), {}
    for size in SIZES:
        networks = Networks(size)
        samplers = {
            "round of 16": free.SpeculativeSampler(
                networks, networks, schedule, 16, sweeps=1, recycle="response"
            ),
            "plain step": free.SequentialSampler(networks, schedule),
        }
        for name, sampler in samplers.items():
            seconds = []
            for seed in range(IMAGES):
                began = time.perf_counter()
                rounds = sampler.sample([1], seed=seed).report.rounds
                seconds.append((time.perf_counter() - began) / rounds)
            found[f"{name}, D = {size}"] = 1e6 * min(seconds)
    return found


def in_a_process(folder: Path | None) -> dict[str, float]:
    """What a fresh process measures, of the version in ``folder`` if one is given."""
    path = {} if folder is None else {"PYTHONPATH": str(folder)}
    environment = os.environ | {"OMP_NUM_THREADS": "1"} | path
    command = [sys.executable, __file__, "--once"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--before", type=Path, help="folder with another version's package")
    parser.add_argument("--processes", type=int, default=7, help="of each version (%(default)s)")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--once", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.once:
        print(json.dumps(measured()))
        return
    versions = {"before": options.before} if options.before else {}
    versions["now"] = None
    runs: dict[str, list[dict[str, float]]] = {name: [] for name in versions}
    for _ in range(options.processes):
        for name, folder in versions.items():
            runs[name].append(in_a_process(folder))
    table = {
        what: {name: statistics.median(run[what] for run in each) for name, each in runs.items()}
        for what in runs["now"][0]
    }
    for what, figures in table.items():
        print(f"{what:24s}", *(f"{name} {us:7.0f} us" for name, us in figures.items()))
    if options.json:
        from free.files import write_json
        from free.machine import machine

        record = {"machine": machine(), "microseconds": table, "runs": runs}
        write_json(options.json, record)


if __name__ == "__main__":
    main()
