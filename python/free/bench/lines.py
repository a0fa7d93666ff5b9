"""Measuring rows: all samplers in turn, then the quality of each law."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from tqdm import tqdm

from free.bench.draws import Draws
from free.bench.judge import Judge, complete, judge, missing
from free.bench.rows import PLAIN
from free.bench.timing import Timing, timed
from free.evaluation import Figure
from free.rounds.report import Report

__all__ = ["Line", "bench"]


class Line(NamedTuple):
    """What is found of a row.

    Attributes
    ----------
    name, group, label, law : str
    lossless : bool
        Whether the law is the plain sampler's, of all steps.
    window : int or "auto"
    rounds, teacher_rows : float
        Of an image; means over those timed, the discarded ones included: counts do not suffer.
    acceptance : float or None
        Share of the drafts that were accepted; None where none were made.
    steps_a_round : float
    timing : Timing
        Seconds an image.
    speedup : float
        Plain sampler's median over this one's.
    share : dict of str to float
        Median share of the time, by phase; empty where a graph made the rounds.
    execution : str
        As of :class:`free.Report`.
    tv_bound : float
        Mean over the images (:class:`free.Report`).
    peak_bytes : int or None
    figures : dict of str to Figure
        Of the law.
    """

    name: str
    group: str
    label: str
    law: str
    lossless: bool
    window: int | str
    rounds: float
    teacher_rows: float
    acceptance: float | None
    steps_a_round: float
    timing: Timing
    speedup: float
    share: dict[str, float]
    execution: str
    tv_bound: float
    peak_bytes: int | None
    figures: dict[str, Figure]

    def to_dict(self) -> dict[str, Any]:
        """As JSON takes it."""
        figures = {name: vars(figure) for name, figure in self.figures.items()}
        return self._asdict() | {"timing": self.timing._asdict(), "figures": figures}


def bench(
    draws: Sequence[Draws],
    steps: int,
    repeats: int,
    by: Judge | None,
    classes: int,
    progress: bool = False,
) -> list[Line]:
    """Time samplers in turn, a batch each, and judge their images.

    Parameters
    ----------
    draws : sequence of Draws
        The plain sampler's among them.
    steps : int
        N.
    repeats : int
        Batches of each, >= 2, that no other process has disturbed; if they are not to be had from
        twice as many, all are used (:func:`timed`).
    by : Judge or None
        Of quality.
    classes : int
    progress : bool
        Show bars.

    Returns
    -------
    list of Line
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
    figures = {} if by is None else _judged(laws, by, classes, progress)
    plain = timings[PLAIN].median
    return [
        _line(row, timings[row.row.name], plain, law, figures.get(law, {}))
        for law, rows in laws.items()
        for row in rows
    ]


def _judged(
    laws: dict[str, list[Draws]], by: Judge, classes: int, progress: bool
) -> dict[str, dict[str, Figure]]:
    """Figures of each law, once its rows have drawn enough."""
    total = sum(len(missing(rows, by.images, classes)) for rows in laws.values())
    with tqdm(total=total, desc="drawing", unit="image", disable=not progress) as bar:
        for rows in laws.values():
            complete(rows, by.images, classes, bar.update)
    bar = tqdm(laws.items(), desc="judging", unit="law", disable=not progress)
    return {law: judge(rows, by, classes) for law, rows in bar}


def _line(draws: Draws, timing: Timing, plain: float, law: str, figures: dict[str, Figure]) -> Line:
    row, report = draws.row, draws.report
    batch = report.samples / len(draws.reports)
    seconds = {name: getattr(timing, name) / batch for name in ("median", "iqr", "minimum")}
    return Line(
        row.name,
        row.group,
        row.label if row.part == 1 else law,
        law,
        row.lossless,
        row.window,
        rounds=statistics.mean(report.rounds_by_sample),
        teacher_rows=report.teacher_rows / report.samples,
        acceptance=report.acceptance if report.proposed else None,
        steps_a_round=report.parallel_efficiency,
        timing=timing._replace(**seconds),
        speedup=plain / timing.median,
        share={
            phase: statistics.median(_share(single, phase) for single in draws.reports)
            for phase in report.seconds_by_phase
        },
        execution=report.execution,
        tv_bound=report.tv_bound,
        peak_bytes=draws.peak,
        figures=figures,
    )


def _share(report: Report, phase: str) -> float:
    return report.seconds_by_phase.get(phase, 0.0) / report.seconds
