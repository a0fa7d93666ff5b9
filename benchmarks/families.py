"""Rounds of the speculative sampler, by family of samplers and number of steps, without training.

    python benchmarks/families.py --font NotoColorEmoji.ttf --quality 500 \
        --json benchmarks/results/families.json --plot docs/families.png
    python benchmarks/families.py --table benchmarks/results/families.json

Two networks are sampled with the frozen drafter's own settings: the embedded model, with guidance,
and the exact denoiser of images (:mod:`kernel_density`) in 192, 768 and 3,072 dimensions, which
predicts a noise or a velocity. Its images are those of a colour font, which is not part of the
package (Debian's ``fonts-noto-color-emoji``); without one, the digits of the ``train`` extra.

Counts do not depend on the machine. Rows are written as they come; with ``--resume`` those already
in the JSON are not measured again.
"""

from __future__ import annotations

import argparse
import json
import shlex
import statistics
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from tqdm import tqdm

from free import (
    FrozenDrafter,
    Schedule,
    SequentialSampler,
    SpeculativeSampler,
    load_pretrained,
)
from free.files import write_json
from free.machine import machine
from kernel_density import KernelDensity, digits, emoji
from rounds import standard_error

STEPS = (10, 25, 50, 100)
BANDWIDTH = 0.15
#: Images a figure, by the network's dimensions; few steps have fewer rounds to average, so more.
IMAGES = {192: 16, 768: 8, 784: 8, 3072: 4}
MORE = {10: 6, 25: 2}
#: Images of a row whose steps a round are written beside the mean's.
OF_IMAGES = {"slowest": max, "median": statistics.median, "fastest": min}


class Family(NamedTuple):
    """A label, and the schedule of so many steps.

    With a ``velocity`` the network predicts flow matching's, and is told ``largest`` at t = 1.
    """

    label: str
    schedule: Callable[[int], Schedule]
    velocity: bool = False
    largest: float = 1000.0


def _scheduler(name: str, **config: Any) -> Callable[[int], Schedule]:
    import diffusers

    return lambda steps: Schedule.from_scheduler(getattr(diffusers, name)(**config), steps)


def _dpm(order: int, karras: bool) -> Callable[[int], Schedule]:
    return _scheduler(
        "DPMSolverMultistepScheduler",
        algorithm_type="sde-dpmsolver++",
        solver_order=order,
        use_karras_sigmas=karras,
    )


def _flow(kind: str) -> Callable[[int], Schedule]:
    return lambda steps: Schedule.flow(kind, steps)


FAMILIES = {
    "ddpm": Family("DDPM", Schedule.ddpm),
    "ddpm-clipped": Family(
        "DDPM, clipped", _scheduler("DDPMScheduler", timestep_spacing="linspace")
    ),
    "ddim": Family("DDIM, eta .5", lambda n: Schedule.ddpm(n, stochasticity=0.5)),
    "sde-1": Family("SDE, 1", lambda n: Schedule.sde("vp", n, 1.0)),
    "sde-0.5": Family("SDE, .5", lambda n: Schedule.sde("vp", n, 0.5)),
    "euler-ancestral": Family("Euler ancestral", _scheduler("EulerAncestralDiscreteScheduler")),
    "dpm-1": Family("SDE-DPM++ 1", _dpm(1, False)),
    "dpm-1-karras": Family("SDE-DPM++ 1, Karras", _dpm(1, True)),
    "dpm-2": Family("SDE-DPM++ 2", _dpm(2, False)),
    "dpm-2-karras": Family("SDE-DPM++ 2, Karras", _dpm(2, True)),
    "renoise": Family("renoising", _flow("renoise"), True),
    "flow-sde": Family("Flow-SDE, .7", _flow("flow-sde"), True),
    "cps": Family("CPS, .7", _flow("cps"), True),
    "dance": Family("DanceGRPO, .3", _flow("dance"), True),
    "linear-1": Family("linear SDE, 1", lambda n: Schedule.sde("linear", n, 1.0), True),
    "linear-0.5": Family("linear SDE, .5", lambda n: Schedule.sde("linear", n, 0.5), True),
    "repa": Family("REPA", Schedule.repa, True, 1.0),
}


class Network(NamedTuple):
    """A name, and the teacher, guidance and images a figure with a family."""

    name: str
    dimensions: int
    teacher: Callable[[Family], Any]
    cfg: float


def networks(options: argparse.Namespace) -> list[Network]:
    """Those of the options."""
    found = []
    for name in options.networks.split(","):
        if name == "embedded":
            embedded, _ = load_pretrained("mnist")
            found.append(Network(name, 784, lambda _, network=embedded: network, options.cfg))
            continue
        size = round((int(name) / 3) ** 0.5)
        if 3 * size**2 != int(name):
            raise SystemExit(f"--networks must be embedded or 3 size^2, got {name}")
        images = emoji(options.font, size) if options.font else digits(size)

        def exact(family: Family, images: torch.Tensor = images) -> KernelDensity:
            return KernelDensity(
                images, BANDWIDTH, velocity=family.velocity, largest=family.largest
            )

        found.append(Network(name, int(name), exact, 1.0))
    return found


def measure(network: Network, family: Family, steps: int, window: int) -> dict[str, Any]:
    """One row."""
    teacher, drafter = network.teacher(family), FrozenDrafter()
    settings = {**drafter.sampling, "window": window}
    sampler = SpeculativeSampler(
        teacher, drafter, family.schedule(steps), cfg_scale=network.cfg, **settings
    )
    images = IMAGES[network.dimensions] * MORE.get(steps, 1)
    samples, report = sampler.sample(torch.arange(images) % teacher.num_classes, seed=0)
    row = {
        "network": network.name,
        "label": family.label,
        "steps": steps,
        "window": window,
        "images": images,
        "steps_a_round": report.parallel_efficiency,
        "standard_error": standard_error(report),
        **{name: steps / f(report.rounds_by_sample) for name, f in OF_IMAGES.items()},
        "teacher_rows_an_image": report.teacher_rows / images,
        "accepted": report.accepted / max(sum(report.examined_by_step), 1),
    }
    if isinstance(teacher, KernelDensity):
        row["off"] = statistics.mean(teacher.off(samples).tolist())
    return row


def quality(teacher: KernelDensity, family: Family, steps: int, images: int) -> dict[str, Any]:
    """How far the plain sampler's law is from the images' own, whoever draws from it: the energy
    distance ``2 E|X - Y| - E|X - X'| - E|Y - Y'|``, 0 if they are equal, with its standard error.

    Of ``images`` samples in ten parts, against 4,000 of the law, without bias.
    """
    generator = torch.Generator().manual_seed(1)
    centres = torch.randint(len(teacher.images), (4000,), generator=generator)
    noise = torch.randn(4000, teacher.images.shape[1], generator=generator)
    law = teacher.images[centres] + teacher.bandwidth * noise
    labels = torch.zeros(images, dtype=torch.int64)
    samples = SequentialSampler(teacher, family.schedule(steps)).sample(labels, 10**6).samples
    within = torch.pdist(law).mean()
    parts = [
        float(2 * torch.cdist(part, law).mean() - torch.pdist(part).mean() - within)
        for part in samples.chunk(10)
    ]
    error = statistics.stdev(parts) / len(parts) ** 0.5
    return {"energy_images": images, "energy": statistics.mean(parts), "energy_error": error}


def table(rows: list[dict[str, Any]], window: int) -> str:
    """In Markdown, for each network: steps a round, of the slowest to the fastest image, by family
    and steps; and where they were measured, energy distances and how far off samples are.
    """
    rows = [row for row in rows if row["window"] == window]
    lines = []

    def add(title: str, own: list[dict[str, Any]], cell: Callable[[dict[str, Any]], str]) -> None:
        steps = sorted({row["steps"] for row in own})
        lines.extend([f"\n{title}, W = {window}\n"])
        lines.append("| family | " + " | ".join(f"{n} steps" for n in steps) + " |")
        lines.append("|---" * (len(steps) + 1) + "|")
        for label in dict.fromkeys(row["label"] for row in own):
            cells = " | ".join(cell(row) for row in own if row["label"] == label)
            lines.append(f"| {label} | {cells} |")

    def rounds(row: dict[str, Any]) -> str:
        return f"{row['steps_a_round']:.1f} ({row['slowest']:.1f} to {row['fastest']:.1f})"

    def distance(row: dict[str, Any]) -> str:
        return f"{row['energy']:.3f} ± {row['energy_error']:.3f}; {row['off']:.2f}"

    for network in dict.fromkeys(row["network"] for row in rows):
        own = [row for row in rows if row["network"] == network]
        add(f"steps a round, {network}", own, rounds)
        if judged := [row for row in own if "energy" in row]:
            add(f"energy distance; off, {network}", judged, distance)
    return "\n".join(lines)


def plot(path: str, rows: list[dict[str, Any]], window: int) -> None:
    """Steps a round by steps: two networks of noise, one of velocities; and by dimension."""
    import matplotlib.pyplot as plt

    rows = [row for row in rows if row["window"] == window]
    noise = [f.label for f in FAMILIES.values() if not f.velocity]
    velocity = [f.label for f in FAMILIES.values() if f.velocity]
    styles: dict[str, dict[str, Any]] = {
        label: {"color": f"C{i}", "linestyle": "--" if "Karras" in label else "-", "marker": "o"}
        for i, label in enumerate(noise)
    } | {
        label: {"color": plt.get_cmap("Dark2")(i), "linestyle": "-.", "marker": "s"}
        for i, label in enumerate(velocity)
    }

    def lines(axis: Any, labels: list[str], by: str, own: list[dict[str, Any]]) -> None:
        places = sorted({int(row[by]) for row in own})
        for i, label in enumerate(labels):
            line = sorted((r for r in own if r["label"] == label), key=lambda r: int(r[by]))
            shift = 0.015 * (i - (len(labels) - 1) / 2)
            axis.errorbar(
                [places.index(int(row[by])) + shift for row in line],
                [row["steps_a_round"] for row in line],
                [row["standard_error"] for row in line],
                markersize=4,
                elinewidth=0.8,
                label=label,
                **styles[label],
            )
        axis.set_yscale("log", base=2)
        axis.set_yticks([1, 2, 4, 8], ["1", "2", "4", "8"])
        axis.set_xticks(range(len(places)), [f"{place:,}" for place in places])
        axis.set(xlabel=by, ylabel=f"steps a round, W = {window}", ylim=(0.95, 9.5))
        axis.legend(fontsize="x-small", loc="upper left", ncols=2)
        axis.grid(alpha=0.3)

    figure, axes = plt.subplots(2, 2, figsize=(11, 8.4), layout="constrained")
    for axis, network, labels, title in (
        (axes[0, 0], "embedded", noise, "embedded model, guidance 1.5, D = 784"),
        (axes[0, 1], "3072", noise, "exact denoiser of images, D = 3,072: noise"),
        (axes[1, 0], "3072", velocity, "exact denoiser of images, D = 3,072: velocity"),
    ):
        lines(axis, labels, "steps", [row for row in rows if row["network"] == network])
        axis.set_title(title)
    some = ["DDPM", "SDE, .5", "SDE-DPM++ 2, Karras", "renoising", "Flow-SDE, .7", "linear SDE, .5"]
    exact = [row for row in rows if row["network"] != "embedded" and row["steps"] == 50]
    lines(axes[1, 1], some, "network", exact)
    axes[1, 1].set(title="exact denoiser of images, 50 steps", xlabel="dimensions D")
    figure.savefig(path, dpi=150)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--networks", default="embedded,192,768,3072")
    parser.add_argument("--families", default=",".join(FAMILIES), help="of: " + ", ".join(FAMILIES))
    parser.add_argument("--steps", default=",".join(map(str, STEPS)))
    parser.add_argument("--windows", default="16,8")
    parser.add_argument("--cfg", type=float, default=1.5, help="of the embedded model")
    parser.add_argument("--font", type=Path, help="a colour font with bitmaps")
    parser.add_argument(
        "--quality", type=int, metavar="IMAGES", help="energy distances of so many, in D = 192"
    )
    parser.add_argument("--json")
    parser.add_argument("--resume", action="store_true", help="keep the rows that JSON has")
    parser.add_argument("--plot")
    parser.add_argument("--table", metavar="JSON", help="print its tables, and measure nothing")
    options = parser.parse_args()
    windows = list(map(int, options.windows.split(",")))

    if options.table:
        rows = json.loads(Path(options.table).read_text())["rows"]
        print("\n".join(table(rows, window) for window in windows))
        if options.plot:
            plot(options.plot, rows, windows[0])
        return
    if unknown := set(options.families.split(",")) - FAMILIES.keys():
        parser.error(f"--families must be of {', '.join(FAMILIES)}, got {', '.join(unknown)}")
    settings = {
        "cfg": options.cfg,
        "bandwidth": BANDWIDTH,
        "images": options.font.name if options.font else "digits",
        **FrozenDrafter().sampling,
    }
    del settings["window"]
    rows = []
    if options.resume and options.json and Path(options.json).exists():
        before = json.loads(Path(options.json).read_text())
        if before["settings"] != settings:
            raise SystemExit(f"{options.json} was measured with {before['settings']}")
        rows = before["rows"]
    keys = ("network", "label", "steps", "window")
    done = {tuple(row[key] for key in keys) for row in rows}
    given = (arg for arg in sys.argv if arg != "--resume")
    named = (options.font.name if arg == str(options.font) else arg for arg in given)
    record = {
        "command": shlex.join(["python", *named]),
        "machine": machine(),
        "settings": settings,
    }
    for network in networks(options):
        for family in (FAMILIES[name] for name in options.families.split(",")):
            if family.velocity and network.name == "embedded":
                continue
            for steps, window in (
                (n, w) for n in map(int, options.steps.split(",")) for w in windows
            ):
                if (network.name, family.label, steps, window) in done:
                    continue
                row = measure(network, family, steps, window)
                if options.quality and network.name == "192" and window == windows[0]:
                    row |= quality(network.teacher(family), family, steps, options.quality)
                rows.append(row)
                tqdm.write(
                    f"{network.name:8s} {family.label:20s} {steps:3d} steps, W = {window:2d}: "
                    f"{row['steps_a_round']:5.2f} steps a round"
                )
                if options.json:
                    write_json(options.json, {**record, "rows": rows})
    if options.plot:
        plot(options.plot, rows, windows[0])


if __name__ == "__main__":
    main()
