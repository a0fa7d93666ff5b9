"""Deterministic samplers in fewer rounds: how many, and how far from the images step by step.

    python benchmarks/deterministic.py --json benchmarks/results/deterministic.json
    python benchmarks/deterministic.py --picture docs/deterministic.png
    python benchmarks/deterministic.py --model FOLDER --cfg 2 --resume --json ...
    python benchmarks/deterministic.py --table benchmarks/results/deterministic.json

DDIM without noise (on DiT's timesteps) is drawn step by step, and compared with it, from the same
initial noise and at the same rows a round: the laws of little noise beside it, which are sampled
exactly (``near``); the verifier ``"tolerance"``, without training and, where the model has one,
with its drafter (``trained``); and ParaDiGMS (``paradigms``). For scale, the same sampler with
twice the steps (``twice``).

Images are drawn in one batch. Counts do not depend on the machine; seconds are of this batch, and
mean something on a quiet machine only. Rows are written as they come; with ``--resume`` those that
the JSON has, of other models too, are kept and not measured again.
"""

from __future__ import annotations

import argparse
import json
import shlex
import statistics
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor
from tqdm import tqdm

from free import (
    DiT,
    FrozenDrafter,
    Schedule,
    SequentialSampler,
    SpeculativeSampler,
    load_pretrained,
)
from free.bench.paradigms import paradigms
from free.files import write_json
from free.machine import machine

STEPS = (10, 25, 50, 100, 250)
WINDOWS = (8, 16, 32, 64)
#: What is asked for, by method: amounts of noise, or tolerances.
AMOUNTS = {
    "near": (0.03, 0.01, 0.003, 0.001),
    "tolerance": (0.03, 0.01, 0.003, 0.001),
    "trained": (0.03, 0.01, 0.003),
    "paradigms": (0.1, 0.03, 0.01, 0.003, 0.001),
}
#: Tolerances of the picture, and the factor that differences are drawn with.
DRAWN, TIMES = (0.0125, 0.0018), 10


class Model(NamedTuple):
    """A name, its teacher and drafter, and how it is guided."""

    name: str
    teacher: Any
    drafter: Any
    cfg: float

    @classmethod
    def load(cls, source: str, cfg: float) -> Model:
        """The embedded model, a bundle, or a folder with a teacher alone."""
        if source == "mnist" or (Path(source) / "drafter").is_dir():
            return cls(Path(source).name, *load_pretrained(source), cfg)
        return cls(Path(source).resolve().name, DiT.from_pretrained(source), None, cfg)


def ddim(steps: int, stochasticity: float = 0.0) -> Schedule:
    """DDIM with the betas and timesteps of DiT, and so much noise."""
    config = {
        "_class_name": "DDIMScheduler",
        "beta_schedule": "linear",
        "beta_start": 1e-4,
        "beta_end": 2e-2,
        "clip_sample": False,
        "timestep_spacing": "linspace",
    }
    return Schedule.from_scheduler(config, steps, stochasticity=stochasticity)


def serial(model: Model, steps: int, images: int) -> tuple[Tensor, float]:
    """Images step by step, and seconds."""
    began = time.perf_counter()
    sampler = SequentialSampler(model.teacher, ddim(steps), cfg_scale=model.cfg)
    samples = sampler.sample(_labels(model, images), 0).samples
    return samples, time.perf_counter() - began


def drawn(
    model: Model, method: str, amount: float, steps: int, window: int, images: int
) -> tuple[Tensor, list[int], int, float, dict[str, Any]]:
    """Samples, rounds of each, teacher rows of all, seconds, and what else is known."""
    labels = _labels(model, images)
    if method == "paradigms":
        result = paradigms(
            model.teacher,
            ddim(steps),
            labels,
            0,
            window=window,
            tolerance=amount,
            cfg_scale=model.cfg,
        )
        return (*result, {})
    drafter = model.drafter if method == "trained" else FrozenDrafter()
    settings: dict[str, Any] = {**FrozenDrafter().sampling, "window": window}
    schedule = ddim(steps, amount if method == "near" else 0.0)
    if method != "near":
        settings |= {"verifier": "tolerance", "tolerance": amount}
    sampler = SpeculativeSampler(model.teacher, drafter, schedule, cfg_scale=model.cfg, **settings)
    samples, report = sampler.sample(labels, 0)
    known = {} if method == "near" else {"estimated": report.deviation}
    return samples, report.rounds_by_sample, report.teacher_rows, report.seconds, known


def measure(
    model: Model, method: str, amount: float, steps: int, window: int, reference: Tensor
) -> dict[str, Any]:
    """One row."""
    images = len(reference)
    samples, rounds, rows, seconds, known = drawn(model, method, amount, steps, window, images)
    mean = statistics.mean(rounds)
    return {
        "model": model.name,
        "cfg": model.cfg,
        "method": method,
        "amount": amount,
        "steps": steps,
        "window": window,
        "images": images,
        "steps_a_round": steps / mean,
        "standard_error": steps / mean**2 * statistics.stdev(rounds) / images**0.5,
        "teacher_rows_an_image": rows / images,
        "seconds": seconds,
        **closeness(samples, reference),
        **known,
    }


def closeness(samples: Tensor, reference: Tensor) -> dict[str, float]:
    """PSNR in decibels of images in [-1, 1]: of the mean squared error over all images, with its
    standard error; the mean of each image's, and the worst.
    """
    squares = (samples - reference).double().square().flatten(1).mean(1).clamp(min=1e-16)
    each = 10.0 * torch.log10(4.0 / squares)
    mean = float(squares.mean())
    decibels = 10.0 / torch.log(torch.tensor(10.0)).item()
    return {
        "psnr": float(10.0 * torch.log10(torch.tensor(4.0 / mean))),
        "psnr_error": decibels * float(squares.std()) / mean / len(squares) ** 0.5,
        "psnr_mean": float(each.mean()),
        "psnr_worst": float(each.min()),
        "deviation": mean**0.5,
    }


def table(rows: list[dict[str, Any]]) -> str:
    """In Markdown, for each model, steps and window: rounds at decibels, a line for each method."""
    lines = []
    keys = dict.fromkeys((row["model"], row["steps"]) for row in rows)
    for name, steps in keys:
        own = [row for row in rows if (row["model"], row["steps"]) == (name, steps)]
        twice = next((row for row in own if row["method"] == "twice"), None)
        scale = "" if twice is None else f"; against {2 * steps} steps: {twice['psnr']:.1f} dB"
        lines += [f"\n{name}, {steps} steps{scale}", "", "| W | method | steps a round at PSNR |"]
        lines += ["|---|---|---|"]
        for window in sorted({row["window"] for row in own if row["method"] != "twice"}):
            for method in AMOUNTS:
                cells = [
                    f"{row['steps_a_round']:.2f} ± {row['standard_error']:.2f} at "
                    f"{row['psnr']:.1f} (worst {row['psnr_worst']:.1f})"
                    for row in own
                    if (row["window"], row["method"]) == (window, method)
                ]
                if cells:
                    lines.append(f"| {window} | {method} | {'; '.join(cells)} |")
    return "\n".join(lines)


def picture(path: Path, model: Model, images: int = 6, steps: int = 50, window: int = 16) -> None:
    """The deterministic images, ours within two tolerances, and the differences."""
    from free.images.picture import image_grid

    reference, _ = serial(model, steps, images)
    blocks = [(f"DDIM, {steps} steps, step by step: {steps} rounds", reference)]
    for amount in DRAWN:
        samples, rounds, *_ = drawn(model, "tolerance", amount, steps, window, images)
        psnr = closeness(samples, reference)["psnr"]
        title = f"tolerance {amount:g}: {statistics.mean(rounds):.0f} rounds, {psnr:.0f} dB"
        blocks.append((title, samples))
        blocks.append((f"its difference, times {TIMES}", TIMES * (samples - reference)))
    captions = [str(label) for label in _labels(model, images)]
    scale = max(1, 84 // reference.shape[-1])
    image_grid(blocks, captions, scale).save(path)


def _labels(model: Model, images: int) -> list[int]:
    return [i % model.teacher.num_classes for i in range(images)]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="mnist", help="mnist, or a folder")
    parser.add_argument("--cfg", type=float, default=1.5)
    parser.add_argument("--methods", default=",".join(AMOUNTS))
    parser.add_argument("--steps", default=",".join(map(str, STEPS)))
    parser.add_argument("--windows", default=",".join(map(str, WINDOWS)))
    parser.add_argument("--images", type=int, default=32)
    parser.add_argument("--json")
    parser.add_argument("--resume", action="store_true", help="keep the rows that JSON has")
    parser.add_argument("--picture", type=Path, help="draw this, and measure nothing")
    parser.add_argument("--table", metavar="JSON", help="print its tables, and measure nothing")
    options = parser.parse_args()
    if options.table:
        print(table(json.loads(Path(options.table).read_text())["rows"]))
        return
    methods = options.methods.split(",")
    if unknown := set(methods) - AMOUNTS.keys():
        parser.error(f"--methods must be of {', '.join(AMOUNTS)}, got {', '.join(unknown)}")
    model = Model.load(options.model, options.cfg)
    if options.picture:
        picture(options.picture, model)
        return
    if model.drafter is None:
        methods = [method for method in methods if method != "trained"]
    rows: list[dict[str, Any]] = []
    commands: list[str] = []
    if options.resume and options.json and Path(options.json).exists():
        before = json.loads(Path(options.json).read_text())
        rows, commands = before["rows"], before["commands"]
    named = {options.model: model.name, options.json: Path(options.json or "").name}
    given = (named.get(arg, arg) for arg in sys.argv if arg != "--resume")
    commands.append(shlex.join(["python", *given]))
    keys = ("model", "method", "amount", "steps", "window")
    done = {tuple(row[key] for key in keys) for row in rows}

    def add(row: dict[str, Any]) -> None:
        rows.append(row)
        tqdm.write(
            f"{row['model']} {row['method']:9s} {row['amount']:<6g} {row['steps']:3d} steps, "
            f"W = {row['window']:2d}: {row['steps_a_round']:5.2f} steps a round, "
            f"{row['psnr']:.1f} dB, worst {row['psnr_worst']:.1f}"
        )
        if options.json:
            write_json(options.json, {"commands": commands, "machine": machine(), "rows": rows})

    for steps in map(int, options.steps.split(",")):
        reference, seconds = serial(model, steps, options.images)
        if (model.name, "twice", 0.0, steps, 1) not in done:
            finer, _ = serial(model, 2 * steps, options.images)
            add(
                {
                    **dict(zip(keys, (model.name, "twice", 0.0, steps, 1), strict=True)),
                    "cfg": model.cfg,
                    "images": options.images,
                    "steps_a_round": 1.0,
                    "seconds": seconds,
                    **closeness(reference, finer),
                }
            )
        for window in (w for w in map(int, options.windows.split(",")) if w <= steps):
            for method in methods:
                for amount in AMOUNTS[method]:
                    if (model.name, method, amount, steps, window) not in done:
                        add(measure(model, method, amount, steps, window, reference))


if __name__ == "__main__":
    main()
