"""Rounds and acceptance of the speculative sampler, by window, way of drafting and verifier.

    python benchmarks/rounds.py --json benchmarks/results/rounds.json --plot docs/rounds.png
    python benchmarks/rounds.py --steps 1000 --windows 32 --ways paper,response

Counts do not depend on the machine. Rows are written as they come; with ``--resume`` those already
in the JSON are not measured again.
"""

from __future__ import annotations

import argparse
import json
import statistics
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from tqdm import tqdm

from free import Drafter, FrozenDrafter, Schedule, SpeculativeSampler, load_pretrained
from free.files import write_json
from free.machine import machine
from free.rounds.report import Report


class Way(NamedTuple):
    """A way of drafting: label in tables, which drafter, ``sweeps``, ``recycle``, ``verifier``."""

    label: str
    drafter: str
    sweeps: int | None
    recycle: bool | str
    verifier: str = "reflection"


WAYS = {
    "paper": Way("autoregression (the paper)", "trained", None, False),
    "sweep": Way("1 sweep", "trained", 1, False),
    "features": Way("1 sweep, features recycled", "trained", 1, "drafter"),
    "reuse": Way("1 sweep, recycled: reuse", "trained", 1, "reuse"),
    "response": Way("1 sweep, recycled: response", "trained", 1, "response"),
    "sweeps2": Way("2 sweeps, recycled: response", "trained", 2, "response"),
    "sweeps3": Way("3 sweeps, recycled: response", "trained", 3, "response"),
    "paper-block": Way("autoregression, block", "trained", None, False, "block"),
    "sweep-block": Way("1 sweep, block", "trained", 1, False, "block"),
    "frozen": Way("no training", "image", 1, False),
    "frozen-block": Way("no training, block", "image", 1, False, "block"),
    "frozen-reuse": Way("no training, recycled: reuse", "image", 1, "reuse"),
    "frozen-response": Way("no training, recycled: response", "image", 1, "response"),
    "eps": Way("eps kept (De Bortoli et al.)", "eps", 1, False),
}


def standard_error(report: Report) -> float:
    """Of the parallel efficiency N / mean rounds, by the delta method."""
    rounds = report.rounds_by_sample
    spread = statistics.stdev(rounds) / len(rounds) ** 0.5
    return report.parallel_efficiency * spread / statistics.mean(rounds)


def measure(
    way: Way, window: int, options: argparse.Namespace, progress: bool = True
) -> dict[str, Any]:
    """One row."""
    drafter: Drafter
    teacher, drafter = load_pretrained(options.model)
    if way.drafter != "trained":
        drafter = FrozenDrafter(way.drafter)
    sampler = SpeculativeSampler(
        teacher,
        drafter,
        Schedule.ddpm(options.steps),
        window,
        options.cfg,
        sweeps=way.sweeps,
        recycle=way.recycle,
        verifier=way.verifier,
    )
    labels = torch.arange(options.images) % teacher.num_classes
    report = sampler.sample(labels, seed=0, progress=progress).report
    return {
        "label": way.label,
        **way._asdict(),
        "window": window,
        "rounds": statistics.mean(report.rounds_by_sample),
        "parallel_efficiency": report.parallel_efficiency,
        "standard_error": standard_error(report),
        "acceptance": report.acceptance,
        "drafter_calls_a_round": report.drafter_calls / report.rounds,
        "kept_bytes_a_sample": report.kept_bytes / options.images,
        "accepted_by_step": report.accepted_by_step,
        "examined_by_step": report.examined_by_step,
    }


def plot(path: str, rows: list[dict[str, Any]], steps: int, images: int) -> None:
    """Left: steps a round by window. Right: where drafts are rejected."""
    import matplotlib.pyplot as plt

    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4.2), layout="constrained")
    labels = list(dict.fromkeys(row["label"] for row in rows))
    styles = {
        row["label"]: {
            "color": f"C{labels.index(row['label'])}",
            "linestyle": "-" if row["drafter"] == "trained" else "--",
        }
        for row in rows
    }
    for label in labels:
        own = [row for row in rows if row["label"] == label]
        left.errorbar(
            [row["window"] for row in own],
            [row["parallel_efficiency"] for row in own],
            [row["standard_error"] for row in own],
            marker="o",
            markersize=4,
            label=label,
            **styles[label],
        )
    windows = sorted({row["window"] for row in rows})
    left.set_xscale("log", base=2)
    left.set_xticks(windows, [str(window) for window in windows])
    left.set(xlabel="window W (teacher rows a round)", ylabel="steps a round", ylim=(0, None))
    left.legend(fontsize="x-small", loc="upper left")
    left.grid(alpha=0.3)
    widest = max(window for window in windows if window <= 16)
    for row in rows:
        if row["window"] == widest:
            rejected = np.subtract(row["examined_by_step"], row["accepted_by_step"]) / images
            bins = np.add.reduceat(rejected, np.arange(steps % 10, steps, 10))
            left_over = np.arange(len(bins), 0, -1) * 10 - 5
            right.plot(left_over, bins, **styles[row["label"]])
    right.set(
        xlabel="transitions left (the image is finished at the right)",
        ylabel=f"rejections an image in 10 transitions, W = {widest}",
        ylim=(0, None),
    )
    right.invert_xaxis()
    right.grid(alpha=0.3)
    figure.savefig(path, dpi=150)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="mnist")
    parser.add_argument("--ways", default=",".join(WAYS), help="of: " + ", ".join(WAYS))
    parser.add_argument("--windows", default="4,8,16,32")
    parser.add_argument("--steps", type=int, default=250)
    parser.add_argument("--cfg", type=float, default=1.5)
    parser.add_argument("--images", type=int, default=100)
    parser.add_argument("--json")
    parser.add_argument("--resume", action="store_true", help="keep the rows that JSON has")
    parser.add_argument("--plot")
    options = parser.parse_args()

    unknown = set(options.ways.split(",")) - WAYS.keys()
    if unknown:
        parser.error(f"--ways must be of {', '.join(WAYS)}, got {', '.join(sorted(unknown))}")
    settings = {name: getattr(options, name) for name in ("model", "steps", "cfg", "images")}
    rows: list[dict[str, Any]] = []
    if options.resume and options.json and Path(options.json).exists():
        before = json.loads(Path(options.json).read_text())
        if before["settings"] != settings:
            raise SystemExit(f"{options.json} was measured with {before['settings']}")
        rows = before["rows"]
    print(f"{options.images} images, {options.steps} steps, guidance {options.cfg}")
    for window in map(int, filter(None, options.windows.split(","))):
        for way in (WAYS[name] for name in options.ways.split(",")):
            if any((row["label"], row["window"]) == (way.label, window) for row in rows):
                continue
            row = measure(way, window, options)
            rows.append(row)
            tqdm.write(
                f"W = {window:2d}  {way.label:36s} {row['rounds']:7.1f} rounds  "
                f"{row['parallel_efficiency']:6.2f} +- {row['standard_error']:4.2f} steps a round"
            )
            if options.json:
                record = {"machine": machine(), "settings": settings, "rows": rows}
                write_json(options.json, record)
    if options.plot:
        plot(options.plot, rows, options.steps, options.images)


if __name__ == "__main__":
    main()
