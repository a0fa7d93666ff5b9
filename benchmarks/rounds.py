"""Rounds and acceptance of the speculative sampler, by window.

    python benchmarks/rounds.py --json benchmarks/results/rounds.json \
        --plot benchmarks/results/rounds.png

Counts come from one batch of images; times from single images, so they are those of batch 1.
"""

from __future__ import annotations

import argparse
import statistics

import numpy as np
import torch

from _measure import machine
from free import Drafter, FrozenDrafter, Schedule, SpeculativeSampler, load_pretrained
from free.files import write_json
from free.report import Report


def standard_error(report: Report) -> float:
    """Of the parallel efficiency N / mean rounds, by the delta method."""
    rounds = report.rounds_by_sample
    spread = statistics.stdev(rounds) / len(rounds) ** 0.5
    return report.parallel_efficiency * spread / statistics.mean(rounds)


def plot(path: str, reports: dict[int, Report]) -> None:
    import matplotlib.pyplot as plt

    figure, axis = plt.subplots(figsize=(7, 3.6), layout="constrained")
    for window, report in reports.items():
        good, seen = (
            np.convolve(counts, np.ones(10), "same")
            for counts in (report.accepted_by_step, report.examined_by_step)
        )
        share = np.divide(good, seen, out=np.full_like(good, np.nan), where=seen > 0)
        axis.plot(range(report.steps, 0, -1), share, label=f"W = {window}")
    axis.set(
        xlabel="transitions left (image is finished at the right)",
        ylabel="acceptance of examined drafts",
        ylim=(0, 1.02),
    )
    axis.invert_xaxis()
    axis.legend(ncols=len(reports), fontsize="small", loc="lower left")
    axis.grid(alpha=0.3)
    figure.savefig(path, dpi=150)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="mnist")
    parser.add_argument(
        "--drafter",
        default="trained",
        choices=["trained", "image", "eps"],
        help="the model's own, or one without training that keeps the last image or eps",
    )
    parser.add_argument("--windows", default="2,4,6,8,12")
    parser.add_argument("--steps", type=int, default=250)
    parser.add_argument("--cfg", type=float, default=1.5)
    parser.add_argument("--images", type=int, default=100)
    parser.add_argument("--timed-images", type=int, default=5, help="0: no times")
    parser.add_argument("--json")
    parser.add_argument("--plot")
    options = parser.parse_args()

    drafter: Drafter
    teacher, drafter = load_pretrained(options.model)
    if options.drafter != "trained":
        drafter = FrozenDrafter(options.drafter)
    schedule = Schedule.ddpm(options.steps)
    labels = torch.arange(options.images) % teacher.num_classes
    rows, reports = [], {}
    print(f"{options.images} images, {options.steps} steps, guidance {options.cfg}")
    print(" W   rounds   efficiency   accepted  |  ms a round at batch 1: teacher  drafter  other")
    for window in map(int, options.windows.split(",")):
        sampler = SpeculativeSampler(teacher, drafter, schedule, window, options.cfg)
        report = sampler.sample(labels, seed=0).report
        single = [
            sampler.sample([i % teacher.num_classes], seed=i).report
            for i in range(options.timed_images)
        ]
        phases = {
            name: statistics.median(1e3 * r.seconds_by_phase[name] / r.rounds for r in single)
            for name in (single[0].seconds_by_phase if single else ())
        }
        row = {
            "window": window,
            "rounds": statistics.mean(report.rounds_by_sample),
            "parallel_efficiency": report.parallel_efficiency,
            "standard_error": standard_error(report),
            "acceptance": report.acceptance,
            "acceptance_of_examined": report.accepted / sum(report.examined_by_step),
            "accepted_by_step": report.accepted_by_step,
            "examined_by_step": report.examined_by_step,
            "ms_a_round_by_phase": phases,
        }
        rows.append(row)
        reports[window] = report
        line = (
            f"{window:2d}  {row['rounds']:7.1f}  {row['parallel_efficiency']:6.2f} +- "
            f"{row['standard_error']:4.2f}  {100 * report.acceptance:7.1f} %  |  "
        )
        if phases:
            other = phases["verify"] + phases["bookkeeping"]
            line += f"{phases['teacher']:30.2f} {phases['draft']:8.2f} {other:6.2f}"
        print(line, flush=True)
    if options.plot:
        plot(options.plot, reports)
    if options.json:
        settings = {k: v for k, v in vars(options).items() if k not in ("json", "plot")}
        write_json(options.json, {"machine": machine(), "settings": settings, "rows": rows})


if __name__ == "__main__":
    main()
