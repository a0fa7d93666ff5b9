"""How to spread a little noise over the steps of a deterministic sampler.

    python benchmarks/noise_shapes.py --json benchmarks/results/noise_shapes.json
    python benchmarks/noise_shapes.py --model DIT_FOLDER --cfg 2 --shapes sde,level --steps 50

Every shape is tried in several amounts, without training (the frozen drafter, one sweep, recycled
by the response), against the deterministic DDIM image of the same initial noise: steps a round,
and PSNR in decibels. Shapes are compared by the steps a round at the same PSNR, interpolated
between amounts. Counts do not depend on the machine. Rows are written as they come; with
``--resume`` those already in the JSON are not measured again.
"""

from __future__ import annotations

import argparse
import json
import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from free import (
    DiT,
    FrozenDrafter,
    Schedule,
    SequentialSampler,
    SpeculativeSampler,
    load_pretrained,
)
from free.files import write_json
from free.images.deviation import Deviation
from free.machine import machine
from rounds import standard_error

Column = NDArray[np.float64]

#: Standard deviations of a step, up to a factor: of the signal and noise of its state, ``s`` and
#: ``n``, and of the next, ``s2`` and ``n2``.
SHAPES: dict[str, Callable[[Column, Column, Column, Column], Column]] = {
    # Eq. 37 over a step, solved exactly for a constant image.
    "sde": lambda s, n, s2, n2: n2 * np.sqrt(2.0 * np.log(s2 * n / (s * n2))),
    # Euler-Maruyama of the same SDE, which has more in the last steps.
    "euler-maruyama": lambda s, n, s2, n2: s2 * np.sqrt(np.square(n / s) - np.square(n2 / s2)),
    "eta": lambda s, n, s2, n2: n2 * np.sqrt(1.0 - np.square(s * n2 / (s2 * n))),
    "level": lambda s, n, s2, n2: n2,
    "constant": lambda s, n, s2, n2: np.ones_like(n2),
    "change": lambda s, n, s2, n2: s2 * (n / s - n2 / s2),
    # Euler-Maruyama's, tilted: more where there is little noise, or much.
    "late": lambda s, n, s2, n2: np.sqrt((np.square(s2 * n / s) - np.square(n2)) / n2),
    "later": lambda s, n, s2, n2: np.sqrt(np.square(s2 * n / s) - np.square(n2)) / n2,
    # The share of x0 in the mean: an error of x0 is as many sigma at every step. With a floor it is
    # what the package has.
    "image": lambda s, n, s2, n2: s2 - n2 * s / n,
    "image-floor": lambda s, n, s2, n2: np.hypot(s2 - n2 * s / n, 0.01 * np.hypot(s2, n2)),
    "image-late": lambda s, n, s2, n2: (s2 - n2 * s / n) / np.sqrt(n2),
    "early": lambda s, n, s2, n2: np.sqrt((np.square(s2 * n / s) - np.square(n2)) * n2),
}
AMOUNTS = (0.001, 0.005, 0.03)
#: What ``Schedule.from_scheduler(stochasticity=...)`` makes, in amounts that people ask for.
PACKAGE, ASKED = "package", (0.001, 0.01, 0.03)
#: Where shapes are compared, in decibels.
LEVELS = (45.0, 60.0)


def scheduler(betas: str = "linear") -> dict[str, Any]:
    """DDIM as networks of DiT's betas are sampled."""
    return {
        "_class_name": "DDIMScheduler",
        "beta_schedule": betas,
        "clip_sample": False,
        "timestep_spacing": "trailing",
    }


def spread(steps: int, shape: str, amount: float) -> Schedule:
    """The law with noise of this shape, whose squares sum up to those of the SDE's."""
    if shape == PACKAGE:
        return Schedule.from_scheduler(scheduler(), steps, stochasticity=amount)
    plain, little = (
        Schedule.from_scheduler(scheduler(), steps, stochasticity=e) for e in (0.0, 0.01)
    )
    noisy = little.sigma > 0
    left = (plain.a * plain.noise)[noisy]
    after = (plain.b + plain.a * plain.signal)[noisy]
    states = plain.signal[noisy], plain.noise[noisy], after, left
    sigma, of_sde = SHAPES[shape](*states), SHAPES["sde"](*states)
    sigma = sigma * amount * np.sqrt(np.square(of_sde).sum() / np.square(sigma).sum())
    # Never more than there is: what is asked for is reached where it is little.
    renewed = np.square(np.minimum(sigma / left, 0.999))
    stochasticity = np.zeros(steps)
    # What is not renewed falls with the square of the stochasticity in its exponent.
    stochasticity[noisy] = 0.01 * np.sqrt(
        np.log1p(-renewed) / np.log1p(-np.square(little.sigma[noisy] / left))
    )
    return Schedule.from_scheduler(scheduler(), steps, stochasticity=stochasticity)


def draw(sampler: Any, labels: list[int]) -> Any:
    """Images of the labels, and the report; seeds count from 0."""
    return sampler.sample(labels, 0)


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--model", default="mnist", help="mnist, or the folder of a DiT")
    parser.add_argument("--cfg", type=float, default=1.5)
    parser.add_argument("--images", type=int, default=16)
    parser.add_argument("--window", type=int, default=16)
    parser.add_argument("--steps", default="25,50,100")
    parser.add_argument("--shapes", default=",".join((*SHAPES, PACKAGE)))
    parser.add_argument("--json", type=Path)
    parser.add_argument("--resume", action="store_true")
    asked = parser.parse_args()
    torch.set_grad_enabled(False)
    of_mnist = asked.model == "mnist"
    teacher = load_pretrained("mnist")[0] if of_mnist else DiT.from_pretrained(asked.model).eval()
    name = "mnist" if of_mnist else Path(asked.model).name
    rows: list[dict[str, Any]] = []
    if asked.resume and asked.json is not None and asked.json.is_file():
        rows = json.loads(asked.json.read_text())["rows"]
    known = {(r["model"], r["steps"], r["shape"], r["amount"], r["window"]) for r in rows}
    labels = [place % teacher.config.num_classes for place in range(asked.images)]
    for steps in map(int, asked.steps.split(",")):
        plain = None
        for shape in asked.shapes.split(","):
            for amount in ASKED if shape == PACKAGE else AMOUNTS:
                if (name, steps, shape, amount, asked.window) in known:
                    continue
                if plain is None:
                    still = Schedule.from_scheduler(scheduler(), steps, stochasticity=0.0)
                    plain = draw(SequentialSampler(teacher, still, cfg_scale=asked.cfg), labels)
                law = spread(steps, shape, amount)
                sampler = SpeculativeSampler(
                    teacher, FrozenDrafter(), law, asked.window,
                    cfg_scale=asked.cfg, sweeps=1, recycle="response",
                )  # fmt: skip
                images, report = draw(sampler, labels)
                found = Deviation.of(images, plain.samples, span=2.0)
                examined, accepted = report.examined_by_step, report.accepted_by_step
                rows.append({
                    "model": name, "steps": steps, "shape": shape, "amount": amount,
                    "window": asked.window, "cfg": asked.cfg, "images": asked.images,
                    "psnr": found.psnr, "largest": found.largest,
                    "steps_per_round": report.parallel_efficiency,
                    "standard_error": standard_error(report),
                    "rejected_by_step": [e - a for e, a in zip(examined, accepted, strict=True)],
                })  # fmt: skip
                print(
                    f"{name} {steps:4d} steps  {shape:15s} {amount:6g}  {found.psnr:5.1f} dB  "
                    f"{report.parallel_efficiency:5.2f} +- {standard_error(report):.2f}",
                    flush=True,
                )
                if asked.json is not None:
                    command = f"python benchmarks/noise_shapes.py {shlex.join(sys.argv[1:])}"
                    write_json(asked.json, {"command": command, "rows": rows, "machine": machine()})
    print(table(rows))


def table(rows: list[dict[str, Any]]) -> str:
    """Steps a round at :data:`LEVELS` by shape, in Markdown."""
    cells = sorted({(row["model"], row["steps"]) for row in rows})
    shapes = list(dict.fromkeys(row["shape"] for row in rows))
    heads = [f"{model} {steps}, {level:g} dB" for model, steps in cells for level in LEVELS]
    lines = [["shape", *heads], ["---"] * (len(heads) + 1)]
    for shape in shapes:
        line = [shape]
        for cell in cells:
            mine = [r for r in rows if (r["model"], r["steps"]) == cell and r["shape"] == shape]
            mine.sort(key=lambda row: row["psnr"])
            psnr, rounds = ([r[key] for r in mine] for key in ("psnr", "steps_per_round"))
            line += [f"{np.interp(level, psnr, rounds):.2f}" if mine else "" for level in LEVELS]
        lines.append(line)
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


if __name__ == "__main__":
    main()
