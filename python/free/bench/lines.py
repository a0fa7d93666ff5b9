"""Measuring rows: all samplers in turn, then the quality of each law."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from free.bench.draws import Draws
from free.bench.judge import BATCH, Judge
from free.bench.rows import PLAIN, Row
from free.bench.timing import Timing, timed
from free.bench.work import WorkBar
from free.evaluation import Figure
from free.rounds.report import Report

#: A law in so many steps.
Sampled = tuple[int, str]


class Line(NamedTuple):
    """A row in so many steps, and what it took.

    Attributes
    ----------
    law : str
        Name of the distribution that it draws from.
    report : Report
        Of all timed batches, the discarded ones included: counts do not suffer.
    timing : Timing
        Seconds an image.
    speedup : float
        Median of the plain sampler of as many steps over this one's.
    share : dict of str to float
        Median share of the time, by phase; empty where a graph made the rounds.
    figures : dict of str to Figure
        Of the law.
    """

    row: Row
    steps: int
    law: str
    report: Report
    timing: Timing
    speedup: float
    share: dict[str, float]
    peak_bytes: int | None
    figures: dict[str, Figure]

    @property
    def rounds(self) -> float:
        """Mean of the images' rounds."""
        return statistics.mean(self.report.rounds_by_sample)

    @property
    def teacher_rows(self) -> float:
        """Mean of the images' teacher rows."""
        return self.report.teacher_rows / self.report.samples

    @property
    def acceptance(self) -> float | None:
        """Share of the drafts that were accepted; None where there were none."""
        return self.report.acceptance if self.report.proposed else None

    def to_dict(self) -> dict[str, Any]:
        """Describe it for JSON."""
        return {
            "name": self.row.name,
            "method": self.row.method,
            "label": self.row.label,
            "steps": self.steps,
            "law": self.law,
            "lossless": self.row.lossless,
            "window": self.row.window,
            "rounds": self.rounds,
            "teacher_rows": self.teacher_rows,
            "acceptance": self.acceptance,
            "steps_a_round": self.report.parallel_efficiency,
            "timing": self.timing._asdict(),
            "speedup": self.speedup,
            "share": self.share,
            "execution": self.report.execution,
            "tv_bound": self.report.tv_bound,
            "peak_bytes": self.peak_bytes,
            "figures": {name: vars(figure) for name, figure in self.figures.items()},
        }


def bench(
    draws: Sequence[Draws], repeats: int, judge: Judge | None, progress: bool = False
) -> list[Line]:
    """Time samplers, a plain one of each number of steps among them, and judge their images.

    All draw a batch in turn. The first batch of each is not timed.

    Parameters
    ----------
    repeats : int
        Batches of each, >= 2, that no other process has disturbed; if they are not to be had from
        twice as many, all are used (:func:`timed`).
    """
    named: dict[str, Draws] = {f"{one.row.name}, {one.steps} steps": one for one in draws}
    laws: dict[Sampled, list[Draws]] = {}
    for one in draws:
        laws.setdefault((one.steps, one.law), []).append(one)
    batch = draws[0].batch_size
    jobs: dict[str, tuple[int, float]] = {
        name: (1 + repeats, batch * one.steps) for name, one in named.items()
    }
    for law, rows in laws.items():
        images = max(0, judge.images - (1 + repeats) * len(rows) * batch) if judge else 0
        jobs[str(law)] = (math.ceil(images / BATCH), BATCH * law[0])
    judged = {law: judge.completing(rows) if judge else iter(()) for law, rows in laws.items()}
    bar = WorkBar(jobs, progress)
    for name, one in named.items():
        one()
        bar.done(name)
    for law in laws:  # so that the bar knows what a batch of these takes
        if bar.left[str(law)] and next(judged[law], True) is None:
            bar.done(str(law))
    functions: dict[str, Callable[[], Any]] = dict(named)
    timings = timed(functions, repeats, warmup=0, attempts=2, tell=bar.done)
    bar.left |= dict.fromkeys(named, 0)  # though samples may have been discarded
    for law, rows in laws.items():
        bar.left[str(law)] = math.ceil(len(judge.missing(rows)) / BATCH) if judge else 0
    for law, batches in judged.items():
        for _ in batches:
            bar.done(str(law))
    bar.close()
    figures = {law: judge.figures(rows) if judge else {} for law, rows in laws.items()}
    plain = {one.steps: timings[name] for name, one in named.items() if one.row.name == PLAIN}
    return [
        _line(one, timings[name], plain[one.steps], figures[one.steps, one.law])
        for name, one in named.items()
    ]


def _line(draws: Draws, timing: Timing, plain: Timing, figures: dict[str, Figure]) -> Line:
    reports = draws.reports
    report = Report.merge(reports)
    batch = report.samples / len(reports)
    seconds = {name: getattr(timing, name) / batch for name in ("median", "iqr", "minimum")}
    share = {
        phase: statistics.median(r.seconds_by_phase.get(phase, 0.0) / r.seconds for r in reports)
        for phase in report.seconds_by_phase
    }
    return Line(
        draws.row,
        draws.steps,
        draws.law,
        report,
        timing._replace(**seconds),
        speedup=plain.median / timing.median,
        share=share,
        peak_bytes=draws.peak,
        figures=figures,
    )
