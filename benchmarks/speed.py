"""Wall-clock of one image: the plain sampler, fewer steps, and speculation by way of drafting.

    python benchmarks/speed.py --json benchmarks/results/speed.json

All samplers run interleaved on the same torch engine, at batch 1. Below the table stand the costs
that limit it: r_W, the teacher's time for W states over that for one, and the drafter's, for one
state and for a window, over the same.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
from collections.abc import Callable
from functools import partial
from typing import Any

import torch

from free import DiT, Schedule, SequentialSampler, SpeculativeSampler, load_pretrained
from free.bench.timing import timed
from free.drafters import DraftingBatch, FeatureDrafter, FrozenDrafter
from free.files import write_json
from free.machine import machine
from free.models.guidance import Guidance, GuidedTeacher
from free.models.output import TeacherRows
from free.rounds.report import Report
from free.schedule.table import Table
from rounds import WAYS


def draws(
    sampler: SequentialSampler | SpeculativeSampler, reports: list[Report]
) -> Callable[[], Any]:
    """A function that draws one image after the other."""
    counter = itertools.count()

    def draw() -> None:
        index = next(counter)
        reports.append(sampler.sample([index % 10], seed=1000 + index).report)

    return draw


@torch.inference_mode()
def costs(
    teacher: DiT, drafter: FeatureDrafter, schedule: Schedule, cfg: float, windows: list[int]
) -> dict[str, float]:
    """Median milliseconds of a teacher call on W states, and of a drafter call on W - 1."""
    table, guidance = Table.of(schedule, "cpu"), Guidance(cfg, None, teacher.null_label)
    guided = GuidedTeacher(teacher, guidance)
    drafter = drafter.begin(DraftingBatch(table, guidance))
    k, y = torch.full((64,), len(schedule) // 2), torch.zeros(64, dtype=torch.int64)
    x = torch.randn(64, *teacher.sample_shape)

    def call(rows: int) -> Callable[[], Any]:
        return lambda: guided(x[:rows], table.timesteps[k[:rows]], y[:rows])

    functions = {f"teacher {rows}": call(rows) for rows in [1, *windows]}
    for rows in sorted({1, *(window - 1 for window in windows)}):
        r = slice(rows)
        out = TeacherRows(*guided(x[r], table.timesteps[k[r]], y[r]), x[r], k[r])
        carry = drafter.carry_of_change(out, torch.arange(rows))
        given = (x[r], torch.zeros_like(x[r]), k[r], y[r], carry)
        functions[f"drafter {rows}"] = partial(drafter.change, *given)
    timings = timed(functions, repeats=30, calls=20)
    return {name: 1e3 * timing.median for name, timing in timings.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="mnist")
    parser.add_argument(
        "--samplers",
        default="paper:4,paper:8,response:4,response:8,response:16,frozen-response:8,"
        "frozen-response:16",
        help="way:window, of: " + ", ".join(WAYS),
    )
    parser.add_argument("--steps", type=int, default=250)
    parser.add_argument("--cfg", type=float, default=1.5)
    parser.add_argument("--repeats", type=int, default=20)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--json")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)

    teacher, trained = load_pretrained(options.model)
    schedule = Schedule.ddpm(options.steps)
    plain = f"plain, {options.steps} steps"
    samplers: dict[str, SequentialSampler | SpeculativeSampler] = {
        plain: SequentialSampler(teacher, schedule, options.cfg)
    }
    for part in (2, 4, 8):
        steps = options.steps // part
        samplers[f"plain, {steps} steps (another law)"] = SequentialSampler(
            teacher, Schedule.ddpm(steps), options.cfg
        )
    windows = set()
    for choice in options.samplers.split(","):
        name, window = choice.split(":")
        way = WAYS[name]
        windows.add(int(window))
        samplers[f"W = {window:>2s}, {way.label}"] = SpeculativeSampler(
            teacher,
            trained if way.drafter == "trained" else FrozenDrafter(way.drafter),
            schedule,
            int(window),
            options.cfg,
            sweeps=way.sweeps,
            recycle=way.recycle,
        )
    reports: dict[str, list[Report]] = {name: [] for name in samplers}
    functions = {name: draws(sampler, reports[name]) for name, sampler in samplers.items()}
    timings = timed(functions, options.repeats, warmup=1)
    cost = costs(teacher, trained, schedule, options.cfg, sorted(windows))

    rows = []
    print(f"batch 1, guidance {options.cfg}, {options.threads} threads, torch eager, float32")
    for name in samplers:
        timing = timings[name]
        row = {"name": name, **timing._asdict(), "speedup": timings[plain].median / timing.median}
        drawn = Report.merge(reports[name])
        row["parallel_efficiency"] = drawn.parallel_efficiency
        row["share"] = {
            phase: statistics.median(r.seconds_by_phase.get(phase, 0) / r.seconds for r in single)
            for single in [reports[name]]
            for phase in drawn.seconds_by_phase
        }
        rows.append(row)
        print(
            f"{name:44s} {timing.median:7.3f} s (IQR {timing.iqr:.3f}, {timing.samples} kept, "
            f"{timing.discarded} discarded)  {row['speedup']:5.2f}x  "
            f"{row['parallel_efficiency']:5.2f} steps a round, "
            f"drafting {100 * row['share'].get('draft', 0):4.1f} % of the time"
        )
    for name, milliseconds in cost.items():
        print(
            f"{name:12s} {milliseconds:6.2f} ms, {milliseconds / cost['teacher 1']:.2f} of one row"
        )
    if options.json:
        settings = {k: v for k, v in vars(options).items() if k != "json"}
        write_json(
            options.json,
            {"machine": machine(), "settings": settings, "rows": rows, "milliseconds": cost},
        )


if __name__ == "__main__":
    main()
