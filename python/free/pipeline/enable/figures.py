"""What the last call of an enabled pipeline took, and would have taken."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass
from typing import Any

from free.files import parse_json
from free.images.deviation import Deviation
from free.rounds.report import Report


@dataclass(frozen=True)
class Summary:
    """Figures of one call.

    Attributes
    ----------
    pipeline, law : str
        Its class; and the scheduler's, or the name of the law that was asked for instead.
    steps, samples, rounds : int
        Transitions of the schedule, images, and rounds of the pipeline's loop.
    network_calls : int
        Calls of the network, those of checks and measurements included.
    rows : int
        States that the network was asked about in rounds, without the branches of guidance.
    acceptance : float
        Share of the drafts that stood; NaN if there were none.
    steps_per_round : float
        Transitions of a sample over its rounds: how many times fewer steps one after the other.
    seconds : float
        From the beginning of the loop to the last step, without ``preparing``.
    seconds_per_round : float
    preparing : float
        Seconds of checks and measurements, which later calls of the same shapes do without.
    plain_seconds : float
        What the loop would have taken step by step: the network's shortest time in a step of one
        row a sample, times the steps. What the pipeline does besides is not counted.
    speedup : float
        ``plain_seconds / seconds``.
    report : Report
        All else (:class:`free.Report`).
    deviation : Deviation or None
        How far the samples are from a reference, where :func:`free.summary` was given one.
    """

    pipeline: str
    law: str
    steps: int
    samples: int
    rounds: int
    network_calls: int
    rows: int
    acceptance: float
    steps_per_round: float
    seconds: float
    seconds_per_round: float
    preparing: float
    plain_seconds: float
    speedup: float
    report: Report
    deviation: Deviation | None = None

    @classmethod
    def of(
        cls,
        report: Report,
        *,
        pipeline: str,
        law: str,
        network_calls: int,
        preparing: float,
        plain_seconds: float,
    ) -> Summary:
        """Sum up a report; ``plain_seconds`` are those of one step."""
        seconds = report.seconds - preparing
        plain = plain_seconds * report.steps
        return cls(
            pipeline=pipeline,
            law=law,
            steps=report.steps,
            samples=report.samples,
            rounds=report.rounds,
            network_calls=network_calls,
            rows=report.teacher_rows,
            acceptance=report.acceptance,
            steps_per_round=report.parallel_efficiency,
            seconds=seconds,
            seconds_per_round=seconds / report.rounds,
            preparing=preparing,
            plain_seconds=plain,
            speedup=plain / seconds,
            report=report,
        )

    def to_dict(self) -> dict[str, Any]:
        """All figures as JSON values; NaN and infinity become None."""
        apart = ("report", "deviation")
        record = {key: value for key, value in asdict(self).items() if key not in apart}
        far = None if self.deviation is None else self.deviation._asdict()
        return {
            **{key: None if _is_nan(value) else value for key, value in record.items()},
            "deviation": far and {key: v if math.isfinite(v) else None for key, v in far.items()},
            "report": parse_json(self.report.to_json()),
        }

    def to_json(self) -> str:
        """All figures as one JSON object."""
        return json.dumps(self.to_dict(), allow_nan=False)

    def __str__(self) -> str:
        drafts = "none" if _is_nan(self.acceptance) else f"{self.acceptance:.0%} stood"
        lines = [
            ("law", self.law),
            ("samples x steps", f"{self.samples} x {self.steps}"),
            ("rounds", f"{self.rounds} ({self.steps_per_round:.1f} steps a round)"),
            ("network calls", f"{self.network_calls}"),
            ("drafts", drafts),
            ("seconds", f"{self.seconds:.3g} ({self.seconds_per_round:.3g} a round)"),
            ("preparing", f"{self.preparing:.3g} s, once for these shapes"),
            ("step by step", f"{self.plain_seconds:.3g} s in the network"),
            ("speed-up", f"{self.speedup:.2f}"),
            *([] if self.deviation is None else [("deviation", str(self.deviation))]),
        ]
        if self.report.deviation:
            lines.append(("not exact", f"about {self.report.deviation:.2g} off, estimated"))
        width = max(len(name) for name, _ in lines)
        return "\n".join([self.pipeline, *(f"  {name:<{width}}  {text}" for name, text in lines)])


def _is_nan(value: Any) -> bool:
    return isinstance(value, float) and math.isnan(value)
