"""What a run did."""

from __future__ import annotations

import dataclasses
import json
import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from itertools import chain
from typing import Any

import numpy as np
import torch
from torch import Tensor

#: What is put around each phase of a run: nothing, unless a profiler is to see them.
PHASE_MARK: ContextVar[Callable[[str], AbstractContextManager[Any]]] = ContextVar(
    "PHASE_MARK", default=nullcontext
)


@dataclasses.dataclass
class Report:
    """Counts and times of one call of ``sample``.

    Attributes
    ----------
    steps, samples : int
        Transitions of the schedule, N; and B.
    seeds : list of int
        The noise seed of each sample; sampling a label alone with its seed repeats its image.
    rounds : int
        Batched teacher calls.
    rounds_by_sample : list of int, length B
        Rounds each sample took part in.
    teacher_rows : int
        States the teacher evaluated (under guidance each costs two network rows).
    drafter_calls : int
        Calls of the drafter, each a batch.
    kept_bytes : int
        Most memory that teacher rows took from one round to the next.
    accepted, proposed : int
        Drafts accepted, and drafts evaluated by the teacher, those behind a rejection included.
    examined_by_step, accepted_by_step : list of int, length N
        Drafts of each transition that were decided on (those up to the first that does not
        stand), and those accepted.
    seconds : float
        Wall-clock of the run.
    seconds_by_phase : dict of str to float
        ``draft``, ``teacher``, ``verify``, ``bookkeeping`` (noise, gathering); empty
        where a graph ran all of them. On a GPU by the host's clock: work counts where it is waited
        for (docs/cuda.md).
    execution : str
        ``"graph"`` if rounds were replayed as CUDA graphs, else ``"eager: "`` and why.
    tv_bound : float
        Mean of ``tv_bound_by_sample``: a bound on the total-variation distance to the teacher's
        law.
    tv_bound_by_sample : list of float, length B
        What each sample's relaxed decisions add up to (:class:`free.Relaxation`); 0 without.
    tv_estimate : float
        Mean of ``tv_estimate_by_sample``: an unbiased estimate of the total-variation distance
        between the laws of whole trajectories, which that of the images does not exceed. It needs
        many samples.
    tv_estimate_by_sample : list of float, length B
        ``max(0, 1 - exp(-l))``, ``l`` a trajectory's log likelihood ratio; in [0, 1]. 0
        without relaxation.
    deviation : float
        Root mean square of ``deviation_by_sample``.
    deviation_by_sample : list of float, length B
        With the verifier ``"tolerance"``, an estimate of how far each sample is from the one of a
        run of one row a round, as a root mean square over its elements (docs/deterministic.md says
        how good it is); 0 with others.
    """

    steps: int
    samples: int
    seeds: list[int]
    rounds: int = 0
    rounds_by_sample: list[int] = dataclasses.field(default_factory=list)
    teacher_rows: int = 0
    drafter_calls: int = 0
    kept_bytes: int = 0
    accepted: int = 0
    proposed: int = 0
    examined_by_step: list[int] = dataclasses.field(default_factory=list, repr=False)
    accepted_by_step: list[int] = dataclasses.field(default_factory=list, repr=False)
    seconds: float = 0.0
    seconds_by_phase: dict[str, float] = dataclasses.field(default_factory=dict)
    execution: str = ""
    tv_bound: float = 0.0
    tv_bound_by_sample: list[float] = dataclasses.field(default_factory=list)
    tv_estimate: float = 0.0
    tv_estimate_by_sample: list[float] = dataclasses.field(default_factory=list)
    deviation: float = 0.0
    deviation_by_sample: list[float] = dataclasses.field(default_factory=list)

    @property
    def parallel_efficiency(self) -> float:
        """N over the mean number of rounds of a sample: how many times fewer teacher calls."""
        return self.steps * self.samples / sum(self.rounds_by_sample)

    @property
    def acceptance(self) -> float:
        """Share of proposed drafts that were accepted; NaN if none was proposed."""
        return self.accepted / self.proposed if self.proposed else math.nan

    @property
    def acceptance_by_step(self) -> list[float]:
        """Share of the examined drafts of each transition that were accepted, [N]; NaN for none."""
        pairs = zip(self.accepted_by_step, self.examined_by_step, strict=True)
        return [good / seen if seen else math.nan for good, seen in pairs]

    @classmethod
    def merge(cls, reports: Sequence[Report]) -> Report:
        """One report for runs of the same schedule, one after the other.

        Raises ValueError if there are none, or their schedules differ in length.
        """
        if len({report.steps for report in reports}) != 1:
            raise ValueError(
                "reports must be of one schedule, got steps "
                f"{sorted({report.steps for report in reports})}"
            )
        total = cls(reports[0].steps, 0, [])
        for field in dataclasses.fields(cls):
            values = [getattr(report, field.name) for report in reports]
            merged: Any
            if field.name == "steps":
                continue
            if field.name.endswith("_by_step"):
                merged = [sum(column) for column in zip(*values, strict=True)]
            elif field.name == "seconds_by_phase":
                phases = {phase: None for value in values for phase in value}
                merged = {phase: sum(value.get(phase, 0.0) for value in values) for phase in phases}
            elif field.name == "kept_bytes":
                merged = max(values)
            elif field.name == "execution":
                merged = "; ".join(dict.fromkeys(values))
            elif field.name in ("tv_bound", "tv_estimate"):
                sizes = [report.samples for report in reports]
                weighted = (value * size for value, size in zip(values, sizes, strict=True))
                merged = math.fsum(weighted) / sum(sizes)
            elif field.name == "deviation":
                squares = (report.samples * report.deviation**2 for report in reports)
                merged = math.sqrt(math.fsum(squares) / sum(report.samples for report in reports))
            elif isinstance(values[0], list):
                merged = list(chain.from_iterable(values))
            else:
                merged = sum(values)
            setattr(total, field.name, merged)
        return total

    def to_json(self) -> str:
        """All fields and the derived shares as one JSON object; NaN becomes null."""
        record = dataclasses.asdict(self)
        record["parallel_efficiency"] = self.parallel_efficiency
        record["acceptance"] = _or_none(self.acceptance)
        record["acceptance_by_step"] = [_or_none(share) for share in self.acceptance_by_step]
        return json.dumps(record, allow_nan=False)


def _or_none(share: float) -> float | None:
    return None if math.isnan(share) else share


class _Phase:
    """Times what happens inside, as often as it is entered; light, as a round has half a dozen."""

    __slots__ = ("_name", "_started", "_totals")

    def __init__(self, name: str, totals: dict[str, float]) -> None:
        self._name, self._totals = name, totals

    def __enter__(self) -> None:
        self._started = time.perf_counter()

    def __exit__(self, *error: Any) -> None:
        self._totals[self._name] += time.perf_counter() - self._started


class Recorder:
    """Fills a report of samples with ``seeds [B]`` round by round."""

    def __init__(self, steps: int, seeds: Tensor, execution: str = "") -> None:
        self.report = Report(steps, len(seeds), seeds.tolist(), execution=execution)
        self.report.tv_bound_by_sample = [0.0] * len(seeds)
        self.report.tv_estimate_by_sample = [0.0] * len(seeds)
        self.report.deviation_by_sample = [0.0] * len(seeds)
        self._rounds: list[tuple[Tensor, ...]] = []
        self._started = time.perf_counter()
        self._mark = PHASE_MARK.get()
        self._phases: dict[str, AbstractContextManager[None]] = {}
        self._before: dict[str, float] = {}

    @contextmanager
    def _marked(self, name: str) -> Iterator[None]:
        with self._phases[name], self._mark(name):
            yield

    def phase(self, name: str) -> AbstractContextManager[None]:
        """A context that adds the time spent inside to ``seconds_by_phase[name]``."""
        if name not in self._phases:
            self.report.seconds_by_phase[name] = 0.0
            self._phases[name] = _Phase(name, self.report.seconds_by_phase)
        return self._phases[name] if self._mark is nullcontext else self._marked(name)

    def lap(self) -> dict[str, float]:
        """Seconds by phase since this was last called."""
        before, self._before = self._before, self.report.seconds_by_phase.copy()
        spent = {name: total - before.get(name, 0.0) for name, total in self._before.items()}
        return {name: seconds for name, seconds in spent.items() if seconds}

    def round(
        self,
        samples: Tensor,
        k: Tensor,
        length: Tensor,
        accepted: Tensor,
        drafter_calls: int = 0,
        rounds: int = 1,
    ) -> None:
        """Count a round, or several. Values are looked at by :meth:`finish` only.

        Of the ``samples [R]``, ``k [R]`` is the transition before the round, ``length [R]`` the
        rows evaluated (0 for one that did not take part), ``accepted [R]`` the drafts accepted.
        """
        self.report.drafter_calls += drafter_calls
        self.report.rounds += rounds
        self._rounds.append((samples, k, length, accepted))

    def kept(self, size: int) -> None:
        """Note the bytes of teacher rows that are kept for the next round."""
        self.report.kept_bytes = max(self.report.kept_bytes, size)

    def relaxed(self, spent: Tensor, log_likelihood: Tensor) -> None:
        """Note what a relaxation did to each sample; both [B]."""
        self.report.tv_bound_by_sample = spent.tolist()
        estimates = (-torch.expm1(-log_likelihood)).clamp(min=0.0)
        self.report.tv_estimate_by_sample = estimates.tolist()

    def deviated(self, estimate: Tensor) -> None:
        """Note how far each sample may be from its serial run, [B]."""
        self.report.deviation_by_sample = estimate.tolist()

    def finish(self) -> Report:
        """The report, complete."""
        for name in ("tv_bound", "tv_estimate"):
            by_sample = getattr(self.report, f"{name}_by_sample")
            setattr(self.report, name, math.fsum(by_sample) / self.report.samples)
        by_sample = self.report.deviation_by_sample
        self.report.deviation = math.hypot(*by_sample) / math.sqrt(self.report.samples)
        self._count()
        self.report.seconds = time.perf_counter() - self._started
        return self.report

    def _count(self) -> None:
        """Add up what the rounds were."""
        report, N = self.report, self.report.steps
        columns = zip(*self._rounds, strict=True)
        # One look at the device for each, and numpy, as these are many steps on little.
        counts = (torch.cat(column).cpu().numpy().astype(np.int64) for column in columns)
        samples, k, length, good = counts
        took = length > 0
        samples, k, length, good = samples[took], k[took], length[took], good[took]
        report.rounds_by_sample = np.bincount(samples, minlength=report.samples).tolist()
        report.teacher_rows, report.accepted = int(length.sum()), int(good.sum())
        report.proposed = report.teacher_rows - len(length)
        # Drafts k .. k+accepted-1 were accepted; the next one, if there was one, was not.
        for name, count in (
            ("examined_by_step", np.minimum(good + 1, length - 1)),
            ("accepted_by_step", good),
        ):
            begin, end = (np.bincount(at, minlength=N + 1) for at in (k, k + count))
            setattr(report, name, (begin - end).cumsum()[:N].tolist())
