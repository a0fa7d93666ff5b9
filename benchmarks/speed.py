"""Wall-clock of one image: the plain sampler, fewer steps, and speculation by window.

    python benchmarks/speed.py --json benchmarks/results/speed.json

All samplers run interleaved on the same torch engine, at batch 1. Below the table stands the
ceiling that the costs of teacher and drafter allow: E[advance] / (r_W + (W - 1) c), with r_W the
teacher's time for W states over that for one, and c the drafter's for one state over the same.
"""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Callable
from typing import Any

import torch

from _measure import machine, timed
from free import DiT, Schedule, SequentialSampler, SpeculativeSampler, load_pretrained
from free.drafters import DraftingBatch, FeatureDrafter
from free.files import write_json
from free.models.guidance import Guidance, GuidedTeacher
from free.models.output import TeacherRows
from free.schedule import Table


def draws(sampler: SequentialSampler | SpeculativeSampler) -> Callable[[], Any]:
    """A function that draws one image after the other."""
    counter = itertools.count()

    def draw() -> None:
        index = next(counter)
        sampler.sample([index % 10], seed=1000 + index)

    return draw


@torch.inference_mode()
def costs(
    teacher: DiT, drafter: FeatureDrafter, schedule: Schedule, cfg: float, windows: list[int]
) -> dict[str, float]:
    """Median milliseconds of a teacher call on W states, and of a drafter call on one."""
    table, guidance = Table.of(schedule, "cpu"), Guidance(cfg, None, teacher.null_label)
    guided = GuidedTeacher(teacher, guidance)
    drafter.begin(DraftingBatch(table, guidance))
    k, y = torch.full((64,), len(schedule) // 2), torch.zeros(64, dtype=torch.int64)
    x = torch.randn(64, *teacher.sample_shape)

    def call(rows: int) -> Callable[[], Any]:
        return lambda: guided(x[:rows], table.timesteps[k[:rows]], y[:rows])

    functions = {f"teacher {rows}": call(rows) for rows in [1, *windows]}
    out = TeacherRows(*guided(x[:1], table.timesteps[k[:1]], y[:1]), x[:1], k[:1])
    carry = drafter.carry_from(out, torch.tensor([0]))
    functions["drafter"] = lambda: drafter.predict(x[:1], k[:1], y[:1], carry)
    timings = timed(functions, repeats=30, calls=20)
    return {name: 1e3 * timing.median for name, timing in timings.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="mnist")
    parser.add_argument("--windows", default="2,3,4,6,8")
    parser.add_argument("--steps", type=int, default=250)
    parser.add_argument("--cfg", type=float, default=1.5)
    parser.add_argument("--repeats", type=int, default=20)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--json")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)

    teacher, drafter = load_pretrained(options.model)
    schedule = Schedule.ddpm(options.steps)
    windows = [int(window) for window in options.windows.split(",")]
    plain = f"plain, {options.steps} steps"
    samplers: dict[str, SequentialSampler | SpeculativeSampler] = {
        plain: SequentialSampler(teacher, schedule, options.cfg)
    }
    for part in (2, 4):
        steps = options.steps // part
        samplers[f"plain, {steps} steps (another law)"] = SequentialSampler(
            teacher, Schedule.ddpm(steps), options.cfg
        )
    for window in windows:
        samplers[f"FREE, W = {window}"] = SpeculativeSampler(
            teacher, drafter, schedule, window, options.cfg
        )
    timings = timed({name: draws(s) for name, s in samplers.items()}, options.repeats, warmup=1)
    cost = costs(teacher, drafter, schedule, options.cfg, windows)
    c = cost["drafter"] / cost["teacher 1"]

    rows = []
    print(f"batch 1, guidance {options.cfg}, {options.threads} threads, torch eager, float32")
    for name, sampler in samplers.items():
        timing = timings[name]
        row = {"name": name, **timing._asdict(), "speedup": timings[plain].median / timing.median}
        note = ""
        if isinstance(sampler, SpeculativeSampler):
            report = sampler.sample(torch.arange(50) % 10, seed=1000).report
            r = cost[f"teacher {sampler.window}"] / cost["teacher 1"]
            row["parallel_efficiency"] = report.parallel_efficiency
            row["r_W"] = r
            row["ceiling"] = report.parallel_efficiency / (r + (sampler.window - 1) * c)
            note = (
                f"{row['parallel_efficiency']:5.2f} steps a round, r_W {r:.2f}, "
                f"ceiling {row['ceiling']:.2f}x"
            )
        rows.append(row)
        print(
            f"{name:34s} {timing.median:7.3f} s (IQR {timing.iqr:.3f}, {timing.samples} kept, "
            f"{timing.discarded} discarded)  {row['speedup']:5.2f}x  {note}"
        )
    print(f"teacher, one guided state: {cost['teacher 1']:.2f} ms; drafter: c = {c:.3f}")
    if options.json:
        settings = {k: v for k, v in vars(options).items() if k != "json"}
        write_json(
            options.json,
            {"machine": machine(), "settings": settings, "rows": rows, "milliseconds": cost},
        )


if __name__ == "__main__":
    main()
