"""Rounds and acceptance of the speculative sampler, by window, way of drafting and verifier.

    python benchmarks/rounds.py --json benchmarks/results/rounds.json --plot docs/rounds.png
    python benchmarks/rounds.py --steps 1000 --windows 32 --ways paper,response
    python benchmarks/rounds.py --draw benchmarks/results/rounds.json --plot docs/rounds.png

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
from free.bench.style import COLOURS, Label, label_ends, name_axes, number_ticks, panels, save
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

#: Of the ways, those that the picture shows: what it calls them, and the colour's method.
PLOTTED = {
    "response": ("recycled", "trained"),
    "frozen-response": ("recycled, no training", "recycled"),
    "paper": ("autoregression (the paper)", "paper"),
    "frozen": ("last image kept", "image"),
    "eps": ("last noise kept", "eps"),
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


def plot(path: Path, rows: list[dict[str, Any]], steps: int, images: int) -> None:
    """Left: steps a round by window. Right: where drafts are rejected. Of the ways of PLOTTED."""
    figure, (left, right) = panels(2)
    windows = sorted({row["window"] for row in rows})
    widest = max(window for window in windows if window <= 16)
    ends: dict[Any, list[Label]] = {}
    later = []
    for name, (text, method) in PLOTTED.items():
        way, colour = WAYS[name], COLOURS[method]
        own = [row for row in rows if row["label"] == way.label]
        if not own:
            continue
        left.errorbar(
            [row["window"] for row in own],
            [row["parallel_efficiency"] for row in own],
            [row["standard_error"] for row in own],
            marker="o",
            markersize=4,
            color=colour,
        )
        last = own[-1]
        ends.setdefault(last["window"], []).append(
            Label(last["window"], last["parallel_efficiency"], text, colour)
        )
        for row in own:
            if row["window"] == widest:
                rejected = np.subtract(row["examined_by_step"], row["accepted_by_step"]) / images
                bins = np.add.reduceat(rejected, np.arange(steps % 10, steps, 10))
                left_over = np.arange(len(bins), 0, -1) * 10 - 5
                right.plot(left_over, bins, color=colour)
                later.append(Label(left_over[-1], bins[-1], text, colour))
    left.set_xscale("log", base=2)
    number_ticks(left.xaxis, windows)
    left.set_ylim(0, None)
    name_axes(left, "window W: teacher rows a round", "steps a round")
    right.set_ylim(0, None)
    right.invert_xaxis()
    right.set_xlim(None, 0)
    name_axes(
        right,
        "transitions left until the image is finished",
        f"rejections an image in 10 transitions, W = {widest}",
    )
    for labels in ends.values():
        label_ends(left, labels)
    label_ends(right, later)
    save(figure, path)


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
    parser.add_argument("--draw", metavar="JSON", help="plot its rows, and measure nothing")
    parser.add_argument("--plot", type=Path)
    options = parser.parse_args()
    if options.draw:
        record = json.loads(Path(options.draw).read_text(encoding="utf-8"))
        plot(options.plot, record["rows"], *(record["settings"][n] for n in ("steps", "images")))
        return

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
