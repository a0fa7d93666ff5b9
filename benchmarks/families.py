"""Rounds of the speculative sampler, by family of samplers and number of steps, without training.

    python benchmarks/families.py --font NotoColorEmoji.ttf \
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

import numpy as np
import torch
from tqdm import tqdm

from free import FrozenDrafter, Schedule, SpeculativeSampler, load_pretrained
from free.files import write_json
from free.machine import machine
from kernel_density import KernelDensity, digits, emoji

STEPS = (10, 25, 50, 100)
BANDWIDTH = 0.15
#: Images a figure, by the network's dimensions; few steps have fewer rounds to average, so more.
IMAGES = {192: 16, 768: 8, 784: 8, 3072: 4}
MORE = {10: 6, 25: 2}


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
        "rounds_by_image": report.rounds_by_sample,
        "steps_a_round": report.parallel_efficiency,
        "teacher_rows_an_image": report.teacher_rows / images,
        "accepted": report.accepted / max(sum(report.examined_by_step), 1),
    }
    if isinstance(teacher, KernelDensity):
        row["off"] = statistics.mean(teacher.off(samples).tolist())
    return row


def of_images(row: dict[str, Any]) -> list[float]:
    """Steps a round of the slowest, the median and the fastest image."""
    rounds = row["rounds_by_image"]
    return [row["steps"] / f(rounds) for f in (max, statistics.median, min)]


def table(rows: list[dict[str, Any]], window: int) -> str:
    """In Markdown, for each network: steps a round, of the slowest to the fastest image, by family
    and steps; and how far off the samples are.
    """
    lines = []
    for network in dict.fromkeys(row["network"] for row in rows):
        own = [row for row in rows if (row["network"], row["window"]) == (network, window)]
        steps = sorted({row["steps"] for row in own})
        lines += [f"\n{network}, W = {window}\n"]
        lines += ["| family | " + " | ".join(f"{n} steps" for n in steps) + " |"]
        lines += ["|---" * (len(steps) + 1) + "|"]
        for label in dict.fromkeys(row["label"] for row in own):
            cells = []
            for row in (row for row in own if row["label"] == label):
                low, _, high = of_images(row)
                off = f"; {row['off']:.2f}" if "off" in row else ""
                cells.append(f"{row['steps_a_round']:.1f} ({low:.1f} to {high:.1f}{off})")
            lines.append(f"| {label} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def plot(path: str, rows: list[dict[str, Any]], window: int) -> None:
    """Steps a round by steps: two networks of noise, one of velocities; and by dimension."""
    import matplotlib.pyplot as plt

    rows = [row for row in rows if row["window"] == window]
    figure, axes = plt.subplots(2, 2, figsize=(11, 8.4), layout="constrained")
    noise = [f.label for f in FAMILIES.values() if not f.velocity]
    velocity = [f.label for f in FAMILIES.values() if f.velocity]
    styles = {
        label: {"color": f"C{i}", "linestyle": "--" if "Karras" in label else "-"}
        for labels in (noise, velocity)
        for i, label in enumerate(labels)
    }
    panels = [
        (axes[0, 0], "embedded", noise, "embedded model, guidance 1.5, D = 784"),
        (axes[0, 1], "3072", noise, "exact denoiser of images, D = 3,072, noise"),
        (axes[1, 0], "3072", velocity, "exact denoiser of images, D = 3,072, velocity"),
    ]
    for axis, network, labels, title in panels:
        own = [row for row in rows if row["network"] == network]
        steps = sorted({row["steps"] for row in own})
        places = {n: i for i, n in enumerate(steps)}
        for i, label in enumerate(labels):
            line = [row for row in own if row["label"] == label]
            shift = 0.012 * (i - len(labels) / 2)
            x = [places[row["steps"]] + shift for row in line]
            y = np.array([row["steps_a_round"] for row in line])
            low, _, high = np.array([of_images(row) for row in line]).T
            axis.errorbar(x, y, [y - low, high - y], marker="o", markersize=4, elinewidth=0.7,
                          label=label, **styles[label])  # fmt: skip
        axis.set_xticks(range(len(steps)), [str(n) for n in steps])
        axis.set(title=title, xlabel="steps", ylabel="steps a round", ylim=(0, None))
        axis.legend(fontsize="x-small", loc="upper left")
    axis = axes[1, 1]
    dimensions = sorted(int(row["network"]) for row in rows if row["network"].isdigit())
    dimensions = list(dict.fromkeys(dimensions))
    for label in ("DDPM", "SDE, .5", "Euler ancestral", "SDE-DPM++ 2, Karras", "renoising",
                  "linear SDE, .5"):  # fmt: skip
        line = {
            int(row["network"]): row["steps_a_round"]
            for row in rows
            if row["label"] == label and row["steps"] == 50 and row["network"].isdigit()
        }
        marker = "s" if label in velocity else "o"
        axis.plot(range(len(dimensions)), [line[d] for d in dimensions], marker=marker,
                  markersize=4, label=label, color=styles[label]["color"],
                  linestyle=":" if label in velocity else styles[label]["linestyle"])  # fmt: skip
    axis.set_xticks(range(len(dimensions)), [f"{d:,}" for d in dimensions])
    axis.set(title="exact denoiser of images, 50 steps", xlabel="dimensions D",
             ylabel="steps a round", ylim=(0, None))  # fmt: skip
    axis.legend(fontsize="x-small", loc="lower left")
    for axis in axes.flat:
        axis.grid(alpha=0.3)
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
    named = (options.font.name if arg == str(options.font) else arg for arg in sys.argv)
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
