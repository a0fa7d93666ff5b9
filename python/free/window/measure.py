"""Measuring what rounds cost on this machine: once, then it is kept on disk.

The parts of a round are repeated here on invented states; how rounds put them together is known in
:mod:`free.rounds` only.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import platform
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from free.drafters.protocol import drafts_windows
from free.files import cache_folder, read_json, write_json
from free.models.output import TeacherRows, require_finite
from free.ops import verify_window
from free.reference.draft import DRAFTER
from free.rounds.draft import draft_window
from free.rounds.noise import Purpose, normal, window_numbers
from free.rounds.report import Recorder
from free.rounds.state import Recycled, Samples
from free.version import __version__
from free.window.costs import CostCurve, RoundCosts
from free.window.rule import Run

#: Makes a call on so many rows, or whatever is counted, to be timed.
Work = Callable[[int], Callable[[], Any]]

#: Seconds that the teacher's curve, and all the others together, may take to measure.
_TEACHER_BUDGET, _OTHER_BUDGET = 1.0, 1.0
#: Times that each number of rows is measured again, if there is time.
_PASSES = 10


def fingerprint(run: Run) -> str | None:
    """Hash of what costs depend on; None if a network is of an unknown kind.

    The machine, the device, threads, the package's version, and of each network, that of the
    variance included, its ``cost_key``, or its class, ``config``, precision and device.
    """
    parts = [_describe(part) for part in (run.model, run.drafter, run.table.mixture)]
    if None in parts:
        return None
    device = run.state.device
    gpu = torch.cuda.get_device_name(device) if device.type == "cuda" else ""
    machine = (platform.node(), platform.processor(), os.cpu_count(), gpu, str(device))
    versions = (__version__, torch.__version__, torch.get_num_threads())
    text = json.dumps([parts, run.guided, machine, versions], sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def measured_costs(
    run: Run, sweeps: Sequence[int | None], largest: int, fresh: bool = False
) -> RoundCosts:
    """Measure what rounds of this run cost, or read it from disk if it was measured before.

    Parameters
    ----------
    run : Run
        Its drafter has begun.
    sweeps : sequence of (int or None)
        Numbers of sweeps to measure.
    largest : int
        Rows of a window, at most.
    fresh : bool
        Measure even if the costs are on disk.
    """
    path = _cache_path(run, sweeps, largest)
    if path is not None and not fresh:
        # A file that is missing, damaged or out of reach is written again.
        with suppress(ValueError, KeyError, TypeError, OverflowError):
            costs = RoundCosts.from_dict(read_json(path, "costs")["costs"])
            costs.require(sweeps)
            return costs
    costs = _measure(run, sweeps, largest)
    if path is not None:
        with suppress(OSError):  # a folder that cannot be written to is no reason not to sample
            write_json(path, {"shape": list(run.state.shape), "costs": costs.to_dict()})
    return costs


def _describe(network: Any) -> Any:
    """JSON values that a network's cost depends on, or None if it is of an unknown kind."""
    if network is None:
        return "none"
    if hasattr(network, "cost_key"):
        key = network.cost_key
        return None if key is None else [type(network).__qualname__, key]
    inner = getattr(network, "network", network)  # a drafter's
    config = getattr(inner, "config", None)
    if not dataclasses.is_dataclass(config) or isinstance(config, type):
        return None
    weight = next(inner.parameters(), None) if isinstance(inner, torch.nn.Module) else None
    precision = [] if weight is None else [str(weight.dtype), str(weight.device)]
    return [type(network).__qualname__, dataclasses.asdict(config), *precision]


def _cache_path(run: Run, sweeps: Sequence[int | None], largest: int) -> Path | None:
    key = fingerprint(run)
    if key is None:
        return None
    shape = "x".join(map(str, run.state.shape))
    numbers = "-".join(str(number or 0) for number in sweeps)
    try:
        folder = cache_folder("costs")
    except OSError:
        return None
    return folder / f"{key}-{shape}-{numbers}-{largest}.json"


@torch.no_grad()
def _measure(run: Run, sweeps: Sequence[int | None], largest: int) -> RoundCosts:
    samples, device = len(run.labels), run.state.device
    stage = _Stage(run, largest)
    rows = _ladder(samples, largest)
    share = _OTHER_BUDGET / (len(sweeps) + 2)
    return RoundCosts(
        _curve(stage.teacher, rows, _TEACHER_BUDGET, device),
        _curve(stage.plain, [samples, max(samples // 4, 1)], share, device),
        _curve(stage.other, rows, share, device),
        {
            n: (stage.drafting(n), _curve(stage.draft(n), stage.drafts(n), share, device))
            for n in sweeps
        },
    )


class _Stage:
    """The parts of a round on invented states, all in the middle of the run."""

    def __init__(self, run: Run, largest: int) -> None:
        self.run = run
        self.places = max(largest - 1, 1)
        self.middle = max(len(run.table.sigma) // 2 - 1, 0)
        self.one = self._rows(1)
        self.out, _, self.guess, _ = run.target(*self._inputs(1))
        require_finite(self.out.eps, "teacher", self.one, 0 * self.one)  # or drafters would seem so

    def _rows(self, rows: int) -> Tensor:
        return torch.full((rows,), self.middle, dtype=torch.int64, device=self.run.state.device)

    def _inputs(self, rows: int) -> tuple[Tensor, Tensor, Tensor]:
        each = torch.arange(rows, device=self.run.state.device) % len(self.run.labels)
        return self.run.state[each], self._rows(rows), self.run.labels[each]

    def teacher(self, rows: int) -> Callable[[], Any]:
        x, k, y = self._inputs(rows)
        return lambda: self.run.target(x, k, y)

    def plain(self, samples: int) -> Callable[[], Any]:
        """Noise and counting of a transition."""
        table, k = self.run.table, self._rows(samples)
        x = self._inputs(samples)[0]
        recorder, one = Recorder(len(table.sigma), k), torch.ones_like(k, dtype=torch.int32)

        def work() -> None:
            noise = normal(k, k, k, Purpose.TRANSITION, x.shape[1:])
            torch.addcmul(x, table.sigma[k].view([-1] + [1] * (x.dim() - 1)), noise)
            recorder.round(0 * k, k, one, one - 1)

        return work

    def other(self, rows: int) -> Callable[[], Any]:
        """Noise, verification and counting of windows with so many rows."""
        width = min(rows, self.places + 1)
        samples = -(-rows // width)
        table, k = self.run.table, self._rows(samples * width)
        x = self._inputs(samples * width)[0]
        recorder = Recorder(len(table.sigma), k)
        length = torch.full((samples,), width, dtype=torch.int32, device=x.device)
        uniforms = torch.zeros(samples, width - 1, dtype=torch.float32, device=x.device)

        def work() -> None:
            some = k[:samples]
            window_numbers(x[:samples], some, some, some, None, W=width, steps=len(table.sigma))
            means = x.view(samples, width, *x.shape[1:])
            sigma = table.sigma[k].view(samples, width)
            drafted = means[:, 1:].contiguous()
            verify_window(means, drafted, means, sigma, length, uniforms, means[:, 0].contiguous())
            recorder.round(0 * k[:samples], 0 * k[:samples], length, length - 1)

        return work

    def drafting(self, sweeps: int | None) -> str:
        """What the time of drafting depends on (:data:`free.window.costs.DRAFTING`)."""
        drafter = self.run.drafter
        whole = (
            drafter is not None
            and drafts_windows(drafter)
            and drafter.drafts(self.places + 1, sweeps)
        )
        if whole and self.run.table.affine and self.run.table.noisy:
            return "windows"
        return "calls" if sweeps is None else "rows"

    def drafts(self, sweeps: int | None) -> list[int]:
        """Knots of the curve of drafting."""
        samples = len(self.run.labels)
        if self.drafting(sweeps) != "rows":
            return sorted({samples, 1})
        return _ladder(1, self.places) + _ladder(self.places, samples)[1:]

    def draft(self, sweeps: int | None) -> Work:
        """Drafting windows from one teacher row, the transition before."""
        by = self.drafting(sweeps)

        def work(count: int) -> Callable[[], Any]:
            places = {"rows": min(count, self.places), "calls": 1, "windows": self.places}[by]
            samples = -(-count // places) if by == "rows" else count
            x, _, y = self._inputs(samples)
            k = self._rows(samples) + 1  # the transition after the one that the teacher has seen
            rows = TeacherRows(*self.out, x[:1], self.one)
            nearest = torch.zeros(samples, places + 1, dtype=torch.int64, device=x.device)
            past = Recycled(rows, self.guess, nearest, torch.ones_like(k))
            state = Samples.begin(y, k, x, places + 1)._replace(k=k, past=past)
            noise = torch.zeros(samples, places, *x.shape[1:], dtype=x.dtype, device=x.device)
            drafted = torch.full((samples,), places, dtype=torch.int64, device=x.device)
            drafter, table = self.run.drafter, self.run.table
            assert drafter is not None
            return lambda: draft_window(
                drafter,
                state,
                noise,
                drafted,
                table=table,
                sweeps=sweeps,
                source=DRAFTER,
            )

        return work


def _ladder(base: int, largest: int) -> list[int]:
    """``base`` times 1 .. ``largest``, in steps of a half to a third; the most useful first."""
    factors = [1, 2, 1.5, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64]
    rows = [int(base * f) for f in factors if f <= largest] + [max(base // 4, 1), 1]
    return list(dict.fromkeys(rows))


def _curve(work: Work, rows: list[int], budget: float, device: torch.device) -> CostCurve:
    """Time ``work(n)()`` for those of ``rows`` that the budget, in seconds, allows.

    The first two are always measured. Calls of all sizes take turns, and the shortest of each size
    counts: other processes come and go, and only add to it.
    """
    began = time.perf_counter()
    calls: dict[int, Callable[[], Any]] = {}
    seconds: dict[int, float] = {}
    for count in rows:
        left = budget / 2 - (time.perf_counter() - began)
        if len(seconds) > 1 and 3 * seconds[rows[0]] * max(count / rows[0], 1.0) > left:
            continue
        calls[count] = work(count)
        calls[count]()  # the first call of a size may take far longer
        seconds[count] = _time(calls[count], device)
    for _ in range(_PASSES):
        for count, call in calls.items():
            if time.perf_counter() - began + seconds[count] < budget:
                seconds[count] = min(seconds[count], _time(call, device))
    knots = sorted(seconds)
    return CostCurve(knots, [seconds[count] for count in knots])


def _time(call: Callable[[], Any], device: torch.device) -> float:
    """Seconds of one call."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    began = time.perf_counter()
    call()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - began
