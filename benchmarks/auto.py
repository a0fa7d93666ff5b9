"""The automatic window against the plain sampler and fixed windows, on the clock.

    python benchmarks/auto.py --json benchmarks/results/auto.json

The embedded model in batches; with a drafter made useless that still has its good record; and with
a teacher that becomes slower, or faster, in the middle of each image. Samplers run in turn.
"""

from __future__ import annotations

import argparse
import itertools
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from free import AutoWindow, Schedule, SequentialSampler, SpeculativeSampler, load_pretrained
from free.bench.timing import timed
from free.drafters.feature import FeatureDrafter
from free.engines.load import load_engine
from free.export.cache import cached_export
from free.files import write_json
from free.machine import machine
from free.models.guidance import Guidance
from free.models.output import Teacher, TeacherOutput

CFG = 1.5
Sampler = SequentialSampler | SpeculativeSampler


class Useless(FeatureDrafter):
    """Draws its changes of x0 by lot, with the trained drafter's record."""

    def step(self, x: Tensor, *rest: Any) -> tuple[Tensor, Tensor]:
        """As the trained drafter's, but for what it says."""
        change, feature = super().step(x, *rest)
        return torch.randn_like(change), feature


class Paced:
    """A teacher that waits at each call while the noise is above, or below, the middle.

    Parameters
    ----------
    teacher : callable
    seconds : float
    early : bool
        In the first half of a run rather than in the second.
    """

    def __init__(self, teacher: Any, seconds: float, early: bool) -> None:
        self.teacher, self.seconds, self.early = teacher, seconds, early
        self.sample_shape, self.num_classes = teacher.sample_shape, teacher.num_classes
        self.null_label = teacher.null_label

    def __call__(self, x: Tensor, t: Tensor, y: Tensor) -> TeacherOutput:
        """Without guidance, at the teacher's own pace."""
        return self.teacher(x, t, y)

    def guided(self, guidance: Guidance) -> Teacher:
        """The guided teacher, paced."""
        inner = self.teacher.guided(guidance)

        def call(x: Tensor, t: Tensor, y: Tensor) -> TeacherOutput:
            if (int(t.max()) > 500) == self.early:
                time.sleep(self.seconds)
            return inner(x, t, y)

        return call


def draws(sampler: Sampler, batch: int) -> Callable[[], Any]:
    """A function that draws one batch after the other."""
    counter = itertools.count()

    def draw() -> None:
        first = batch * next(counter)
        sampler.sample([(first + i) % 10 for i in range(batch)], seed=1000 + first)

    return draw


def scene(
    name: str,
    teacher: Any,
    drafter: Any,
    batch: int,
    widths: list[int],
    repeats: int,
    steps: int,
    **drafting: Any,
) -> dict[str, Any]:
    """One row: the plain sampler, fixed windows and the automatic one, interleaved."""
    schedule = Schedule.ddpm(steps)
    samplers: dict[str, Sampler] = {"plain": SequentialSampler(teacher, schedule, CFG)}
    for width in widths:
        samplers[f"W = {width}"] = SpeculativeSampler(
            teacher, drafter, schedule, width, CFG, **drafting
        )
    samplers["auto"] = SpeculativeSampler(
        teacher, drafter, schedule, AutoWindow(fresh=True), CFG, **drafting
    )
    functions = {key: draws(sampler, batch) for key, sampler in samplers.items()}
    timings = timed(functions, repeats, warmup=2)
    seconds = {key: timing.median for key, timing in timings.items()}
    best = min(seconds[key] for key in seconds if key != "auto")
    row = {
        "name": name,
        "batch": batch,
        "auto_over_plain": seconds["auto"] / seconds["plain"],
        "auto_over_best": seconds["auto"] / best,
        "timings": {key: timing._asdict() for key, timing in timings.items()},
    }
    columns = "  ".join(f"{key} {value:7.3f}" for key, value in seconds.items())
    clean = all(timing.clean for timing in timings.values())
    print(
        f"{name:34s} batch {batch:2d}: {columns} s; auto / plain {row['auto_over_plain']:.3f}, "
        f"auto / best {row['auto_over_best']:.3f}{'' if clean else ' (busy machine)'}",
        flush=True,
    )
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=250)
    parser.add_argument("--batches", default="1,4,16,64")
    parser.add_argument("--scenes", default="batches,useless,paced", help="which of these")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=12, help="half of it from batch 64")
    parser.add_argument("--json")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)

    batches = [int(batch) for batch in options.batches.split(",")]
    teacher, trained = load_pretrained("mnist")
    assert isinstance(trained, FeatureDrafter)
    folder: Path = cached_export(teacher, trained, 16, 1, max(batches), True)
    on_engine = load_engine(folder, "onnxruntime", threads=options.threads)
    ways = {"sweeps": 1, "recycle": "response"}
    rows = []

    def add(name: str, *models: Any, batch: int = 1, widths: list[int]) -> None:
        repeats = options.repeats if batch < 64 else options.repeats // 2
        rows.append(scene(name, *models, batch, widths, repeats, options.steps, **ways))
        if options.json:
            settings = {k: v for k, v in vars(options).items() if k != "json"}
            write_json(options.json, {"machine": machine(), "settings": settings, "rows": rows})

    scenes = options.scenes.split(",")
    for batch in batches if "batches" in scenes else ():
        widths = {1: [4, 8, 16], 4: [2, 4, 8], 16: [2, 4]}.get(batch, [2])
        add("ONNX Runtime", *on_engine, batch=batch, widths=widths)
    if "useless" in scenes:
        useless = Useless(trained.network, teacher, {"acceptance": trained.acceptance})
        add("torch, useless drafter", teacher, useless, widths=[2, 8])
    engine, drafter = on_engine
    for early, name in () if "paced" not in scenes else ((False, "slower"), (True, "faster")):
        add(f"ONNX Runtime, {name} midway", Paced(engine, 0.005, early), drafter, widths=[4, 16])


if __name__ == "__main__":
    main()
