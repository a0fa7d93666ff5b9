r"""Rounds against the dimension of the images, by way of drafting.

    python benchmarks/dimension.py --images emoji64 --json benchmarks/results/dimension.json
    python benchmarks/dimension.py --networks mnist --resume \
        --json benchmarks/results/dimension.json
    python benchmarks/dimension.py --networks runs/colour --cfg 2 --resume \
        --json benchmarks/results/dimension.json
    python benchmarks/dimension.py --draw benchmarks/results/dimension.json \
        --plot docs/dimension.png

A network is a dimension, a model's name or its path. Of a dimension ``3 size^2`` it is the exact
denoiser of the images of a folder (:mod:`kernel_density`), as ``free train-teacher --data`` takes
them, resized; it has no trained drafter, so nothing is drafted in the paper's way.

Counts do not depend on the machine. Rows are written as they come; with ``--resume`` those already
in the JSON are not measured again, and those of other networks are added.
"""

from __future__ import annotations

import argparse
import json
import shlex
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from tqdm import tqdm

from free import (
    Drafter,
    FeatureDrafter,
    FrozenDrafter,
    Schedule,
    SpeculativeSampler,
    load_pretrained,
)
from free.bench.style import COLOURS, Label, label_ends, name_axes, number_ticks, panels, save
from free.files import write_json
from free.machine import machine
from kernel_density import KernelDensity, folder
from rounds import standard_error

BANDWIDTH = 0.15
EXACT = "exact denoiser"
#: Timesteps at which the denoiser is compared with itself in float64.
_CHECKED = (990, 700, 400, 150, 40, 4)


class Way(NamedTuple):
    """A way of drafting: its label and what it takes."""

    label: str
    drafter: str
    sweeps: int | None = 1
    recycle: bool | str = False


WAYS = {
    "eps": Way("last noise kept (De Bortoli et al.)", "eps"),
    "image": Way("last image kept", "image"),
    "paper": Way("autoregression (the paper)", "trained", None),
    "recycled": Way("recycled, no training", "image", recycle="response"),
}


class Network(NamedTuple):
    """What is sampled."""

    name: str
    teacher: Any
    drafter: Drafter | None
    cfg: float

    @property
    def dimensions(self) -> int:
        """D."""
        return int(torch.Size(self.teacher.sample_shape).numel())


def open_network(name: str, images: Path | None, cfg: float) -> Network:
    """The exact denoiser of a dimension, or a model."""
    if not name.isdigit():
        teacher, drafter = load_pretrained(name)
        own = drafter if isinstance(drafter, FeatureDrafter) else None
        return Network(Path(name).name, teacher, own, cfg)
    size = round((int(name) / 3) ** 0.5)
    if 3 * size**2 != int(name):
        raise SystemExit(f"--networks must be models or 3 size^2, got {name}")
    if images is None:
        raise SystemExit(f"--images must be given, the folder of images for {name} dimensions")
    density = KernelDensity(folder(images, size), BANDWIDTH, velocity=False)
    return Network(EXACT, density, None, 1.0)


def rounding(density: KernelDensity) -> float:
    """The largest error of the predicted noise, relative to its norm, beside float64's."""
    exact = KernelDensity(density.images.double(), BANDWIDTH, velocity=False)
    generator = torch.Generator().manual_seed(2)
    t = torch.tensor(_CHECKED)
    signal, noise = density._relation(t)
    centres = density.images[torch.randint(len(density.images), t.shape, generator=generator)]
    x = signal * centres + noise * torch.randn(centres.shape, generator=generator)
    ours, theirs = density(x, t, t).eps.double(), exact(x.double(), t, t).eps
    return float(((ours - theirs).norm(dim=1) / theirs.norm(dim=1)).max())


def measure(network: Network, way: str, steps: int, window: int, images: int) -> dict[str, Any]:
    """One row."""
    kind, sweeps, recycle = WAYS[way][1:]
    drafter = network.drafter if kind == "trained" else FrozenDrafter(kind)
    assert drafter is not None
    sampler = SpeculativeSampler(
        network.teacher,
        drafter,
        Schedule.ddpm(steps),
        window,
        network.cfg,
        sweeps=sweeps,
        recycle=recycle,
    )
    labels = torch.arange(images) % network.teacher.num_classes
    began = time.perf_counter()
    report = sampler.sample(labels, seed=0).report
    return {
        "network": network.name,
        "dimensions": network.dimensions,
        "cfg": network.cfg,
        "way": way,
        "label": WAYS[way].label,
        "steps": steps,
        "window": window,
        "images": images,
        "steps_a_round": report.parallel_efficiency,
        "standard_error": standard_error(report),
        "rounds": report.rounds_by_sample,
        "examined": sum(report.examined_by_step),
        "accepted": sum(report.accepted_by_step),
        "seconds": time.perf_counter() - began,
    }


def table(rows: Sequence[dict[str, Any]]) -> str:
    """Steps a round in Markdown: a line for each network and way, a column for steps and W."""
    columns = sorted({(-row["steps"], row["window"]) for row in rows})
    headings = [f"{-steps} steps, W = {window}" for steps, window in columns]
    lines = ["| D | network | drafting | " + " | ".join(headings) + " |"]
    lines.append("|---" * (3 + len(columns)) + "|")
    found = {_key(row): row for row in rows}
    for dimensions, network in sorted({(row["dimensions"], row["network"]) for row in rows}):
        for way in WAYS:
            cells = [
                found.get((network, dimensions, way, -steps, window)) for steps, window in columns
            ]
            if not any(cells):
                continue
            shown = [
                f"{row['steps_a_round']:.2f} ± {row['standard_error']:.2f}" if row else ""
                for row in cells
            ]
            lines.append(
                f"| {dimensions:,} | {network} | {WAYS[way].label} | {' | '.join(shown)} |"
            )
    return "\n".join(lines)


def _key(row: dict[str, Any]) -> tuple[Any, ...]:
    return tuple(row[name] for name in ("network", "dimensions", "way", "steps", "window"))


def plot(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    """Steps a round by dimension: lines of the exact denoiser, diamonds of trained networks."""
    window = max(row["window"] for row in rows)
    rows = [row for row in rows if row["window"] == window]
    exact = [row for row in rows if row["network"] == EXACT]
    steps = sorted({row["steps"] for row in rows}, reverse=True)
    figure, axes = panels(len(steps), sharey=True)
    for axis, number in zip(axes, steps, strict=True):
        ends = []
        for way in WAYS:
            line = sorted(
                (row for row in exact if (row["way"], row["steps"]) == (way, number)),
                key=lambda row: row["dimensions"],
            )
            own = [
                row
                for row in rows
                if row not in exact and (row["way"], row["steps"]) == (way, number)
            ]
            for part, style in ((line, "o-"), (own, "D")):
                axis.errorbar(
                    [row["dimensions"] for row in part],
                    [row["steps_a_round"] for row in part],
                    [row["standard_error"] for row in part],
                    fmt=style,
                    color=COLOURS[way],
                    markersize=4 if part is line else 7,
                    markeredgecolor="white" if part is own else None,
                    zorder=3 if part is own else 2,
                )
            if line or own:
                last = (line or own)[-1]
                ends.append(
                    Label(last["dimensions"], last["steps_a_round"], WAYS[way].label, COLOURS[way])
                )
        axis.set_xscale("log")
        axis.set_yscale("log", base=2)
        number_ticks(axis.xaxis, sorted({row["dimensions"] for row in exact}))
        number_ticks(axis.yaxis, (1, 2, 4, 8, 16))
        axis.set_ylim(0.9, 1.05 * window)
        name_axes(
            axis, "dimensions of an image", f"steps a round: {number} steps, window of {window}"
        )
        label_ends(axis, ends)
    save(figure, path)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--networks", default="192,768,3072,12288")
    parser.add_argument("--images", type=Path, help="folder of the images of dimensions")
    parser.add_argument("--cfg", type=float, default=1.5, help="guidance of models")
    parser.add_argument("--ways", default=",".join(WAYS), help="of: " + ", ".join(WAYS))
    parser.add_argument("--steps", default="250,50")
    parser.add_argument("--windows", default="8,16")
    parser.add_argument("--draws", type=int, default=16, help="images drawn for each figure")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--resume", action="store_true", help="keep the rows that JSON has")
    parser.add_argument("--draw", type=Path, metavar="JSON", help="measure nothing, show its rows")
    parser.add_argument("--plot", type=Path)
    options = parser.parse_args()
    ways = options.ways.split(",")
    if unknown := sorted(set(ways) - WAYS.keys()):
        parser.error(f"--ways must be of {', '.join(WAYS)}, got {', '.join(unknown)}")
    if options.draws < 2:
        parser.error(f"--draws must be at least 2, got {options.draws}")

    record: dict[str, Any] = {"runs": [], "rows": []}
    source = options.draw or (options.json if options.resume else None)
    if source is not None and source.exists():
        record = json.loads(source.read_text(encoding="utf-8"))
    rows = record["rows"]
    if options.draw is None:
        run: dict[str, Any] = {"command": _command(), "machine": machine()}
        record["runs"].append(run)
        names = options.networks.split(",")
        for network in (open_network(name, options.images, options.cfg) for name in names):
            if isinstance(network.teacher, KernelDensity):
                centres = len(network.teacher.images)
                run[str(network.dimensions)] = {
                    "centres": centres,
                    "rounding": rounding(network.teacher),
                }
            done = {_key(row) for row in rows}
            for steps in map(int, options.steps.split(",")):
                for window in map(int, options.windows.split(",")):
                    for way in ways:
                        key = (network.name, network.dimensions, way, steps, window)
                        if key in done or (way == "paper" and network.drafter is None):
                            continue
                        rows.append(measure(network, way, steps, window, options.draws))
                        tqdm.write(
                            f"{network.name:12s} D = {network.dimensions:6d} {steps:3d} steps, "
                            f"W = {window:2d}, {way:9s} {rows[-1]['steps_a_round']:5.2f} +- "
                            f"{rows[-1]['standard_error']:.2f}  {rows[-1]['seconds']:6.0f} s"
                        )
                        if options.json:
                            write_json(options.json, record)
    print(table(rows))
    if options.plot:
        plot(options.plot, rows)


def _command() -> str:
    """The command line; of paths their names alone, wherever they are on this machine."""
    words = [Path(word).name if Path(word).is_absolute() else word for word in sys.argv[1:]]
    return shlex.join(["python", "benchmarks/dimension.py", *words])


if __name__ == "__main__":
    main()
