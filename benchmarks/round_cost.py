"""What a round costs without its networks, on one CPU thread, and beside another version.

    python benchmarks/round_cost.py --json round_cost.json
    python benchmarks/round_cost.py --before ../other/python    # a folder with another `free`
    python benchmarks/round_cost.py --before .. --embedded       # seconds an image, with networks

Teacher and drafter return tensors that are there already, so what is left is the round: noise,
drafting, verification, bookkeeping. Window of 16, one sweep, recycled by response, one image of 250
steps; the same without asking the drafter; and the plain sampler's step. Versions are measured in
turn, each time in a process of its own; a figure is the median over the processes of each one's
fastest image. ``--embedded`` are the rows of the README, on torch and on ONNX Runtime. Of the
package only what versions have in common is used.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

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
        with suppress(ValueError):  # versions that always ask a drafter
            samplers["round of 16, none asked"] = free.SpeculativeSampler(
                networks, networks, schedule, 16, sweeps=0, recycle="response"
            )
        for name, sampler in samplers.items():
            seconds = []
            for seed in range(IMAGES):
                began = time.perf_counter()
                rounds = sampler.sample([1], seed=seed).report.rounds
                seconds.append((time.perf_counter() - began) / rounds)
            found[f"{name}, D = {size}"] = 1e6 * min(seconds)
    return found


#: The README's rows: drafter and settings; None for the plain sampler.
ROWS: dict[str, tuple[str, dict[str, Any]] | None] = {
    "plain sampler": None,
    "last eps kept, W = 8": ("eps", {"window": 8, "sweeps": 1}),
    "autoregression, W = 8": ("trained", {"window": 8, "sweeps": None}),
    **{
        f"one sweep, recycled, W = {window}": (
            "trained",
            {"window": window, "sweeps": 1, "recycle": "response"},
        )
        for window in (8, 16, 32, "auto")
    },
    "no training, recycled, W = 16": (
        "image",
        {"window": 16, "sweeps": 1, "recycle": "response"},
    ),
}


def measured_with_networks() -> dict[str, float]:
    """Microseconds of an image of the embedded model: the fastest of a few, in turn."""
    from free.engines.load import load_engine
    from free.export.cache import cached_export

    torch.set_num_threads(1)
    teacher, drafter = free.load_pretrained("mnist")
    folder = cached_export(teacher, drafter, 32, 1, 1, True)
    schedule = free.Schedule.ddpm(250)
    engines = {"torch": (teacher, drafter), "onnx": load_engine(folder, threads=1)}
    samplers = {}
    for engine, (network, trained) in engines.items():
        drafters = {name: free.FrozenDrafter(name) for name in ("eps", "image")}
        drafters["trained"] = trained
        for name, row in ROWS.items():
            samplers[f"{name}, {engine}"] = (
                free.SequentialSampler(network, schedule, cfg_scale=1.5)
                if row is None
                else free.SpeculativeSampler(
                    network, drafters[row[0]], schedule, cfg_scale=1.5, **row[1]
                )
            )
    found = dict.fromkeys(samplers, float("inf"))
    for seed in range(4):  # the first is a warm-up, and an automatic window's trials
        for name, sampler in samplers.items():
            began = time.perf_counter()
            sampler.sample([seed], seed=seed)
            found[name] = min(found[name], 1e6 * (time.perf_counter() - began))
    return found


def in_a_process(folder: Path | None, embedded: bool, cache: Path) -> dict[str, float]:
    """What a fresh process measures, of the version in ``folder`` if one is given."""
    path = {} if folder is None else {"PYTHONPATH": str(folder)}
    path["FREE_CACHE"] = str(cache / ("now" if folder is None else "before"))
    environment = os.environ | {"OMP_NUM_THREADS": "1"} | path
    command = [sys.executable, __file__, "--once", *(["--embedded"] if embedded else [])]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--before", type=Path, help="folder with another version's package")
    parser.add_argument("--processes", type=int, default=7, help="of each version (%(default)s)")
    parser.add_argument("--embedded", action="store_true", help="images of the embedded model")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--once", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.once:
        print(json.dumps(measured_with_networks() if options.embedded else measured()))
        return
    versions = {"before": options.before} if options.before else {}
    versions["now"] = None
    runs: dict[str, list[dict[str, float]]] = {name: [] for name in versions}
    with tempfile.TemporaryDirectory() as cache:
        for _ in range(options.processes):
            for name, folder in versions.items():
                runs[name].append(in_a_process(folder, options.embedded, Path(cache)))
    table = {
        what: {
            name: statistics.median(run[what] for run in each)
            for name, each in runs.items()
            if what in each[0]
        }
        for what in runs["now"][0]
    }
    for what, figures in table.items():
        print(f"{what:40s}", *(f"{name} {us:9.0f} us" for name, us in figures.items()))
    if options.json:
        from free.files import write_json
        from free.machine import machine

        record = {"machine": machine(), "microseconds": table, "runs": runs}
        write_json(options.json, record)


if __name__ == "__main__":
    main()
