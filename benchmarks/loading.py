"""Seconds and memory of loading one network from each format, and whether they give the same.

    python benchmarks/loading.py --json benchmarks/results/loading.json
    python benchmarks/loading.py --model DiT-S/2 --repeats 1

A full-size DiT with random weights is saved in float16 in every format, in a temporary folder
(about 7 GB at DiT-XL/2: the training checkpoint has five such networks in its one file). Each load
is a process of its own. Memory is the peak of the process while it loads, less what it had with
`free` imported; the file and the network are what it is to be compared with. Files are in the page
cache, as they were just written.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from free import DiT, DiTConfig
from free.files import write_json
from free.machine import machine
from free.models.summary import inspect


def random_network(config: DiTConfig) -> DiT:
    """A DiT in float16 whose weights are nowhere zero, made without a copy in float32."""
    with torch.device("meta"):
        network = DiT(config).half()
    network = network.to_empty(device="cpu").requires_grad_(False)
    generator = torch.Generator().manual_seed(0)
    for weight in network.parameters():
        weight.normal_(std=weight[0].numel() ** -0.5, generator=generator)
    table = DiT(DiTConfig(config.image_size, config.patch_size, 1, config.hidden_size, 1, 1))
    network.pos_embed.copy_(table.pos_embed)
    return network


def save_all(network: DiT, folder: Path) -> dict[str, Path]:
    """Every format that is read, by name."""
    sources = {"free": folder / "free", "original": folder / "model.pt"}
    sources["diffusers"] = folder / "diffusers"
    for name, path in sources.items():
        network.save_pretrained(path, name)
    sources["training"] = folder / "training.pt"
    state = network.state_dict()
    moments = {i: {"exp_avg": value.float()} for i, value in enumerate(state.values())}
    rest = {"opt": {"state": moments}, "args": argparse.Namespace(epochs=1400)}
    zeros = {name: torch.zeros_like(value) for name, value in state.items()}
    torch.save({"model": zeros, "ema": state, **rest}, sources["training"])
    return sources


def load(source: str, dtype: str, output: Path) -> dict[str, float]:
    """Load in this process: seconds, and bytes of memory at the peak over those before."""
    before = _memory("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
    start = time.perf_counter()
    network = DiT.from_pretrained(source, dtype=getattr(torch, dtype))
    seconds = time.perf_counter() - start
    peak = _memory("VmHWM")
    resident = _memory("VmRSS")
    torch.manual_seed(0)
    x, t = torch.randn(1, *network.sample_shape), torch.tensor([500])
    with torch.no_grad():
        torch.save(network.float()(x, t, torch.tensor([1])).eps.clone(), output)
    size = sum(value.nbytes for value in network.state_dict().values())
    size = size * getattr(torch, dtype).itemsize // 4
    return {
        "seconds": seconds,
        "peak": peak - before,
        "after": resident - before,
        "peak_of_process": peak,
        "network": size,
    }


def _memory(field: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith(field))


def in_a_process(source: Path, dtype: str, output: Path) -> dict[str, float]:
    """:func:`load` in a fresh one."""
    command = [sys.executable, __file__, "--load", str(source), dtype, str(output)]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def measure(name: str, source: Path, dtype: str, repeats: int, output: Path) -> dict[str, Any]:
    """One row: the quickest of several loads, the largest of their peaks."""
    runs = [in_a_process(source, dtype, output) for _ in range(repeats)]
    path = inspect(source).path
    weights = inspect(source).bytes if name == "training" else path.stat().st_size
    row: dict[str, Any] = {
        "format": name,
        "dtype": dtype,
        "seconds": min(run["seconds"] for run in runs),
        "seconds_median": statistics.median(run["seconds"] for run in runs),
        "file": path.stat().st_size,
        "network": runs[0]["network"],
        "peak": max(run["peak"] for run in runs),
        "after": max(run["after"] for run in runs),
        "peak_of_process": max(run["peak_of_process"] for run in runs),
    }
    # Of a training checkpoint the weights that are asked for, not all that the file has.
    row["larger"] = max(weights, row["network"])
    row["ratio"] = row["peak"] / row["larger"]
    start = time.perf_counter()
    inspect(source)
    row["inspect_seconds"] = time.perf_counter() - start
    return row


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--model", default="DiT-XL/2", help="a published size")
    parser.add_argument("--dtypes", default="float16,float32", help="to load as")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--folder", type=Path, help="where the temporary folder is made")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--load", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.load:
        source, dtype, output = options.load
        print(json.dumps(load(source, dtype, Path(output))))
        return

    rows, equal = [], {}
    print(f"{options.model}, float16 on disk; MB")
    print("format     loaded as  seconds    file  network  peak  after  peak/larger  inspect s")
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        folder = Path(name)
        sources = save_all(random_network(DiTConfig.named(options.model)), folder)
        for dtype in options.dtypes.split(","):
            outputs = []
            for form, source in sources.items():
                row = measure(form, source, dtype, options.repeats, folder / "output")
                outputs.append(torch.load(folder / "output", weights_only=True))
                rows.append(row)
                print(
                    f"{form:10s} {dtype:9s} {row['seconds']:8.2f} "
                    + " ".join(f"{row[key] / 1e6:7.0f}" for key in ("file", "network"))
                    + f" {row['peak'] / 1e6:6.0f} {row['after'] / 1e6:6.0f}"
                    + f" {row['ratio']:11.2f}  {row['inspect_seconds']:.3f}",
                    flush=True,
                )
            equal[dtype] = all(torch.equal(output, outputs[0]) for output in outputs)
            print(f"the same output from all, bit for bit: {equal[dtype]}", flush=True)
    if options.json:
        write_json(
            options.json,
            {"machine": machine(), "model": options.model, "equal": equal, "results": rows},
        )


if __name__ == "__main__":
    main()
