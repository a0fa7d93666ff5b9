"""Images a second of ``free generate``, by sampler and number of processes.

    python benchmarks/generate.py --json benchmarks/results/generate.json

Every run draws all of its images anew, in processes of one thread. The times are of single runs,
with whatever else the machine did meanwhile.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from free.files import digest, write_json
from free.machine import machine

TORCHRUN = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node"]


def run(folder: Path, sampler: str, processes: int, arguments: list[str]) -> dict[str, Any]:
    launch = ["-m", "free"] if processes == 1 else [*TORCHRUN, str(processes), "-m", "--", "free"]
    out, report = folder / "samples.npz", folder / "report.json"
    files = ["--out", str(out), "--json", str(report), "--overwrite"]
    command = [sys.executable, *launch, "generate", "--sampler", sampler, *arguments, *files]
    subprocess.run(command, check=True, capture_output=True)
    record = json.loads(report.read_text(encoding="utf-8"))
    return {
        "sampler": sampler,
        **record["run"],
        "images_per_second": record["run"]["drawn"] / record["run"]["seconds"],
        "parallel_efficiency": record["report"]["parallel_efficiency"],
        "sha256": digest(out),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="mnist")
    parser.add_argument("--num", type=int, default=64)
    parser.add_argument("--batch-size", type=int, default=4)
    parser.add_argument("--steps", type=int, default=250)
    parser.add_argument("--processes", default="1,2")
    parser.add_argument("--json")
    options = parser.parse_args()

    names = ("model", "num", "batch_size", "steps")
    arguments = [
        part
        for name in names
        for part in (f"--{name.replace('_', '-')}", str(getattr(options, name)))
    ]
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for sampler in ("plain", "free"):
            for processes in map(int, options.processes.split(",")):
                row = run(Path(folder), sampler, processes, arguments)
                rows.append(row)
                print(
                    f"{sampler:5s} {processes} process{'es' * (processes > 1):2s} "
                    f"{row['images_per_second']:6.2f} images a second, "
                    f"{row['parallel_efficiency']:5.2f} steps a round, "
                    f"archive {row['sha256'][:12]}"
                )
    if options.json:
        settings = {key: value for key, value in vars(options).items() if key != "json"}
        write_json(options.json, {"machine": machine(), "settings": settings, "rows": rows})


if __name__ == "__main__":
    main()
