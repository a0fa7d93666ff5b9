"""Measuring rows: all samplers in turn, then the quality of each law."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from tqdm import tqdm

from free.bench.draws import Draws
from free.bench.judge import Judge
from free.bench.rows import PLAIN, Row
from free.bench.timing import Timing, timed
from free.evaluation import Figure
from free.rounds.report import Report


class Line(NamedTuple):
    """A row and what it took.

    Attributes
    ----------
    law : str
        Name of the distribution that it draws from.
    report : Report
        Of all timed batches, the discarded ones included: counts do not suffer.
    timing : Timing
        Seconds an image.
    speedup : float
        Plain sampler's median over this one's.
    share : dict of str to float
        Median share of the time, by phase; empty where a graph made the rounds.
    figures : dict of str to Figure
        Of the law.
    """

    row: Row
    law: str
    report: Report
    timing: Timing
    speedup: float
    share: dict[str, float]
    peak_bytes: int | None
    figures: dict[str, Figure]

    @property
    def label(self) -> str:
        """What tables call the row: with fewer steps, the law."""
        return self.row.label if self.row.part == 1 else self.law

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
            "group": self.row.group,
            "label": self.label,
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
    draws: Sequence[Draws],
    steps: int,
    repeats: int,
    judge: Judge | None,
    progress: bool = False,
) -> list[Line]:
    """Time samplers, the plain one among them, in turn, a batch each, and judge their images.

    Parameters
    ----------
    steps : int
        N.
    repeats : int
        Batches of each, >= 2, that no other process has disturbed; if they are not to be had from
        twice as many, all are used (:func:`timed`).
    """
    functions: dict[str, Callable[[], Any]] = {row.row.name: row for row in draws}
    total = len(draws) * (1 + repeats)  # and more, if some are disturbed
    with tqdm(total=total, desc="timing", unit="sample", disable=not progress) as bar:

        def tell(name: str, kept: bool) -> None:
            bar.set_postfix_str(name, refresh=False)
            bar.update()

        timings = timed(functions, repeats, warmup=1, attempts=2, tell=tell)
    laws: dict[str, list[Draws]] = {}
    for row in draws:
        laws.setdefault(row.row.law(steps), []).append(row)
    figures = {} if judge is None else _figures(laws, judge, progress)
    plain = timings[PLAIN].median
    return [
        _line(row, law, timings[row.row.name], plain, figures.get(law, {}))
        for law, rows in laws.items()
        for row in rows
    ]


def _figures(
    laws: dict[str, list[Draws]], judge: Judge, progress: bool
) -> dict[str, dict[str, Figure]]:
    """Figures of each law, once its rows have drawn enough."""
    total = sum(len(judge.missing(rows)) for rows in laws.values())
    with tqdm(total=total, desc="drawing", unit="image", disable=not progress) as bar:
        for rows in laws.values():
            judge.complete(rows, bar.update)
    bar = tqdm(laws.items(), desc="judging", unit="law", disable=not progress)
    return {law: judge.figures(rows) for law, rows in bar}


def _line(draws: Draws, law: str, timing: Timing, plain: float, figures: dict[str, Figure]) -> Line:
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
        law,
        report,
        timing._replace(**seconds),
        speedup=plain / timing.median,
        share=share,
        peak_bytes=draws.peak,
        figures=figures,
    )
