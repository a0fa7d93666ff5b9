"""Measuring what rounds cost on this machine: once, and then it is kept on disk."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import platform
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from free.drafters.protocol import drafts_windows
from free.files import cache_folder, write_json
from free.models.output import TeacherRows
from free.ops import verify_window
from free.reference.draft import DRAFTER
from free.rounds.draft import draft_window
from free.rounds.noise import Purpose, normal, window_numbers
from free.rounds.report import Recorder
from free.rounds.state import Recycled, Samples
from free.version import __version__
from free.window.costs import CostCurve, RoundCosts
from free.window.rule import Run

__all__ = ["fingerprint", "measured_costs"]

Ways = Iterable[int | None]

#: Seconds that the teacher's curve, and all the others together, may take to measure.
_TEACHER_BUDGET, _OTHER_BUDGET = 1.0, 1.0
#: Times that each number of rows is measured again, if there is time.
_PASSES = 10


def fingerprint(run: Run) -> str | None:
    """What costs depend on, hashed; None if teacher or drafter do not tell what they are.

    The machine, the device, threads, the package's version, and of the networks, that of the
    variance included, what is in ``cost_key``, or their class, ``config``, precision and device.
    """
    parts = [_of_network(part) for part in (run.model, run.drafter, run.table.mixture)]
    if None in parts:
        return None
    device = run.state.device
    gpu = torch.cuda.get_device_name(device) if device.type == "cuda" else ""
    machine = (platform.node(), platform.processor(), os.cpu_count(), gpu, str(device))
    versions = (__version__, torch.__version__, torch.get_num_threads())
    text = json.dumps([parts, run.guided, machine, versions], sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def measured_costs(run: Run, ways: Ways, largest: int, fresh: bool = False) -> RoundCosts:
    """What rounds of this run cost; from disk, if it was measured before.

    Parameters
    ----------
    run : Run
        Its drafter has begun.
    ways : iterable of (int or None)
        Numbers of sweeps to measure.
    largest : int
        Rows of a window, at most.
    fresh : bool
        Measure anew.

    Returns
    -------
    RoundCosts
    """
    ways = list(ways)
    path = _cache_path(run, ways, largest)
    if path is not None and path.is_file() and not fresh:
        # Damaged: measured again.
        with suppress(ValueError, KeyError, TypeError, OverflowError, OSError):
            costs = RoundCosts.from_dict(json.loads(path.read_text(encoding="utf-8"))["costs"])
            costs.require(ways)
            return costs
    costs = _measure(run, ways, largest)
    if path is not None:
        with suppress(OSError):  # a folder that cannot be written to is no reason not to sample
            write_json(path, {"shape": list(run.state.shape), "costs": costs.to_dict()})
    return costs


def _of_network(network: Any) -> Any:
    """What a network's cost depends on, or None if that cannot be told."""
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


def _cache_path(run: Run, ways: list[int | None], largest: int) -> Path | None:
    key = fingerprint(run)
    if key is None:
        return None
    shape = "x".join(map(str, run.state.shape))
    drafted = "-".join(str(way or 0) for way in ways)
    return cache_folder() / "costs" / f"{key}-{shape}-{drafted}-{largest}.json"


@torch.no_grad()
def _measure(run: Run, ways: list[int | None], largest: int) -> RoundCosts:
    samples, device = len(run.labels), run.state.device
    stage = _Stage(run, largest)
    rows = _ladder(samples, largest)
    teacher = _curve(stage.teacher, rows, _TEACHER_BUDGET, device)
    share = _OTHER_BUDGET / (len(ways) + 2)
    plain = _curve(stage.plain, [samples, max(samples // 4, 1)], share, device)
    other = _curve(stage.other, rows, share, device)
    draft: dict[int | None, tuple[str, CostCurve]] = {}
    for way in ways:
        draft[way] = stage.drafting(way), _curve(stage.draft(way), stage.drafts(way), share, device)
    return RoundCosts(teacher, plain, other, draft)


class _Stage:
    """The parts of a round on made-up states, all in the middle of the run."""

    def __init__(self, run: Run, largest: int) -> None:
        self.run = run
        self.places = max(largest - 1, 1)
        self.middle = max(len(run.table.sigma) // 2 - 1, 0)
        self.one = self._rows(1)
        self.out, _, self.guess = run.target(*self._inputs(1))

    def _rows(self, rows: int) -> Tensor:
        return torch.full((rows,), self.middle, device=self.run.state.device)

    def _inputs(self, rows: int) -> tuple[Tensor, Tensor, Tensor]:
        each = torch.arange(rows, device=self.run.state.device) % len(self.run.labels)
        return self.run.state[each], self._rows(rows), self.run.labels[each]

    def teacher(self, rows: int) -> Callable[[], Any]:
        inputs = self._inputs(rows)
        return lambda: self.run.target(*inputs)

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
        uniforms = torch.zeros(samples, width - 1, device=x.device)

        def work() -> None:
            window_numbers(k[:samples], k[:samples], k[:samples], length, width, x.shape[1:])
            means = x.view(samples, width, *x.shape[1:])
            sigma = table.sigma[k].view(samples, width)
            drafted = means[:, 1:].contiguous()
            verify_window(means, drafted, means, sigma, length, uniforms, means[:, 0].contiguous())
            recorder.round(0 * k[:samples], 0 * k[:samples], length, length - 1)

        return work

    def drafting(self, sweeps: int | None) -> str:
        """What the time of drafting goes by (:data:`free.window.costs.DRAFTING`)."""
        drafter = self.run.drafter
        whole = (
            drafter is not None
            and drafts_windows(drafter)
            and drafter.drafts(self.places + 1, sweeps)
        )
        if whole and self.run.table.mixture is None:
            return "windows"
        return "calls" if sweeps is None else "rows"

    def drafts(self, sweeps: int | None) -> list[int]:
        """Knots of the curve of drafting."""
        samples = len(self.run.labels)
        if self.drafting(sweeps) != "rows":
            return sorted({samples, 1})
        return _ladder(1, self.places) + _ladder(self.places, samples)[1:]

    def draft(self, sweeps: int | None) -> Callable[[int], Callable[[], Any]]:
        """Drafting windows of which nothing is known but one teacher row."""
        by = self.drafting(sweeps)

        def of(count: int) -> Callable[[], Any]:
            places = {"rows": min(count, self.places), "calls": 1, "windows": self.places}[by]
            samples = -(-count // places) if by == "rows" else count
            x, _, y = self._inputs(samples)
            k = self._rows(samples) + 1  # the transition after the one that the teacher has seen
            rows = TeacherRows(*self.out, x[:1], self.one)
            nearest = torch.zeros(samples, places + 1, dtype=torch.int64, device=x.device)
            past = Recycled(rows, self.guess, nearest, torch.ones_like(k))
            state = Samples.begin(y, k, x, places + 1)._replace(k=k, past=past)
            noise = torch.zeros(samples, places, *x.shape[1:], device=x.device)
            length = torch.full((samples,), places + 1, dtype=torch.int32, device=x.device)
            drafter, prediction = self.run.drafter, self.run.prediction
            assert drafter is not None
            return lambda: draft_window(
                drafter,
                state,
                noise,
                length,
                prediction=prediction,
                sweeps=sweeps,
                source=DRAFTER,
            )

        return of


def _ladder(base: int, largest: int) -> list[int]:
    """``base`` times 1 .. ``largest``, in steps of a half to a third; the needed ones first."""
    factors = [1, 2, 1.5, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64]
    rows = [int(base * f) for f in factors if f <= largest] + [max(base // 4, 1), 1]
    return list(dict.fromkeys(rows))


def _curve(
    work: Callable[[int], Callable[[], Any]],
    rows: list[int],
    budget: float,
    device: torch.device,
) -> CostCurve:
    """Time ``work(n)()`` for those of ``rows`` that the budget, in seconds, allows.

    The first two are always measured. The shortest of some calls, in turn with the others': what
    else the machine does only adds to it, and comes and goes.
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
