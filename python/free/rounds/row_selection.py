"""Which rows of a window the networks are asked about: the wanted ones, or all.

A window has P positions. Wanted of each sample are those from ``low [B]`` up to ``high [B]``.
"""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from free.models.output import is_finite, require_finite
from free.ops import note_nonfinite_

Where = dict[str, Any]


class Listed(NamedTuple):
    """Rows of the windows of a batch, sample by sample: samples ``b`` and positions ``i``, [R]."""

    b: Tensor
    i: Tensor

    def take(self, windows: Tensor) -> Tensor:
        """The rows [R, ...] of ``windows [B, P, ...]``."""
        return windows[self.b, self.i]

    def each(self, column: Tensor) -> Tensor:
        """For every row, its sample's entry of ``column [B, ...]``."""
        return column[self.b]

    @property
    def size(self) -> int:
        """R."""
        return self.b.shape[0]

    @property
    def where(self) -> Where:
        """Which rows these are, as :func:`free.ops.network_rows` takes it."""
        return {"rows": self.size, "first": 0, "end": 0, "sample": self.b, "entry": self.i}

    def before(self, rows: Tensor, first: Tensor) -> Tensor:
        """For every row of ``rows [R, ...]``, the one before it in its window; before the first of
        a sample, its entry of ``first [B, ...]``. Windows must be whole from their first row on.
        """
        begins = (self.i == 0).view([-1] + [1] * (rows.dim() - 1))
        return torch.where(begins, first[self.b], rows.roll(1, 0))

    def put(self, rows: Tensor, windows: Tensor) -> Tensor:
        """``windows [B, P, ...]`` with ``rows`` in their places; the given ones are written to."""
        windows[self.b, self.i] = rows
        return windows

    def windows(self, rows: Tensor, batch: int, width: int) -> Tensor:
        """Windows [B, P, ...] of these rows, 0 elsewhere."""
        return self.put(rows, rows.new_zeros(batch, width, *rows.shape[1:]))


class Span(NamedTuple):
    """Positions ``first .. end - 1`` of every one of ``batch`` samples: the methods are those of
    :class:`Listed`, by views wherever these are all the rows that there are.
    """

    batch: int
    first: int
    end: int

    @property
    def size(self) -> int:
        """R."""
        return self.batch * (self.end - self.first)

    @property
    def where(self) -> Where:
        """Which rows these are, as :func:`free.ops.network_rows` takes it."""
        return {"rows": self.size, "first": self.first, "end": self.end}

    def take(self, windows: Tensor) -> Tensor:
        """The rows [(end - first) B, ...] of ``windows [B, P, ...]``."""
        if self.end - self.first < windows.shape[1]:
            windows = windows[:, self.first : self.end]
        return windows.flatten(0, 1)

    def each(self, column: Tensor) -> Tensor:
        """For every row, its sample's entry of ``column [B, ...]``."""
        size = self.end - self.first
        if size == 1:
            return column
        return column.unsqueeze(1).expand(self.batch, size, *column.shape[1:]).flatten(0, 1)

    def before(self, rows: Tensor, first: Tensor) -> Tensor:
        """For every row, the one before it in its window, or its sample's ``first``."""
        windows = rows.unflatten(0, (self.batch, -1))
        return torch.cat([first.unsqueeze(1), windows[:, :-1]], dim=1).flatten(0, 1)

    def put(self, rows: Tensor, windows: Tensor) -> Tensor:
        """``windows`` with ``rows`` in their places, or the rows where they are all."""
        rows = rows.view(self.batch, self.end - self.first, *rows.shape[1:])
        if rows.shape == windows.shape:
            return rows
        windows[:, self.first : self.end] = rows
        return windows

    def windows(self, rows: Tensor, batch: int, width: int) -> Tensor:
        """Windows [B, P, ...] of these rows, 0 elsewhere."""
        if self.end - self.first == width:
            return rows.view(batch, width, *rows.shape[1:])  # which costs less than unflatten
        return self.put(rows, rows.new_zeros(batch, width, *rows.shape[1:]))


Selection = Listed | Span


class RowSelector(Protocol):
    """A way to choose rows of windows, and to see to it that networks are finite there."""

    def select(self, low: Tensor | None, high: Tensor, first: int, end: int) -> Selection:
        """Choose, among positions ``first .. end - 1``, at least those from ``low [B]``, or 0, to
        ``high [B]``, exclusive.
        """

    def require_finite(
        self,
        eps: Tensor,
        k: Tensor,
        rows: Selection,
        *,
        network: str,
        samples: Tensor,
        low: Tensor | None = None,
        high: Tensor | None = None,
    ) -> None:
        """Refuse a network's output that is not finite where it is wanted.

        ``eps [R, ...]`` and transitions ``k [R]`` are of these rows. They are wanted from ``low``
        to ``high``, [B], by default all. The error names the ``network`` and its ``samples [B]``.
        """


class WantedRows:
    """Exactly the wanted rows. Looks at values, so that the host waits for the device."""

    def select(self, low: Tensor | None, high: Tensor, first: int, end: int) -> Selection:
        """List the wanted rows, or view them where they are the same of every sample."""
        ranges = _ranges(low, high, first, end)
        if len(ranges) == 1:
            return Span(high.shape[0], *ranges.pop())
        b, i = _within(low, high, first, end).nonzero(as_tuple=True)
        return Listed(b, i + first if first else i)

    def require_finite(
        self,
        eps: Tensor,
        k: Tensor,
        rows: Selection,
        *,
        network: str,
        samples: Tensor,
        low: Tensor | None = None,
        high: Tensor | None = None,
    ) -> None:
        """Raise FloatingPointError at once, naming the network, the transitions and the samples."""
        if is_finite(eps):
            return
        if high is not None:  # a sample of which nothing is wanted goes through the motions
            wanted = rows.each(high) > 0
            eps, k, samples = eps[wanted], k[wanted], rows.each(samples)[wanted]
            require_finite(eps, network, k, samples)
            return
        require_finite(eps, network, k, rows.each(samples))


def _ranges(low: Tensor | None, high: Tensor, first: int, end: int) -> set[tuple[int, int]]:
    """The samples' wanted ranges within ``first .. end``, of each kind once."""
    if low is None:
        pairs = {(first, stop) for stop in high.tolist()}
    elif high.is_cpu:
        pairs = set(zip(low.tolist(), high.tolist(), strict=True))
    else:  # one look at the device
        pairs = set(zip(*torch.stack([low, high]).tolist(), strict=True))
    # Of thousands of samples few ranges differ.
    clipped = {(max(begin, first), min(stop, end)) for begin, stop in pairs}
    return {(begin, max(begin, stop)) for begin, stop in clipped}


def _within(low: Tensor | None, high: Tensor, first: int, end: int) -> Tensor:
    """[B, end - first] bool."""
    step = torch.arange(first, end, device=high.device)
    below = step < high[:, None]
    return below if low is None else below & (step >= low[:, None])


class EveryRow:
    """All rows, wanted or not: every round has the same shapes, and nothing is looked at.

    What is computed at unwanted rows is thrown away by whoever wanted the others. The run has so
    many ``samples``; those of :meth:`require_finite` are below. ``failed`` has by network [samples]
    int64, the first transition at which it was not finite; N where it always was.
    """

    def __init__(self, samples: int, steps: int, device: torch.device) -> None:
        self.steps = steps
        self.failed = {
            network: torch.full((samples,), steps, dtype=torch.int64, device=device)
            for network in ("teacher", "drafter")
        }
        self._everywhere = torch.full((samples,), steps, dtype=torch.int64, device=device)

    def select(self, low: Tensor | None, high: Tensor, first: int, end: int) -> Selection:
        """All of the span."""
        return Span(high.shape[0], first, end)

    def require_finite(
        self,
        eps: Tensor,
        k: Tensor,
        rows: Selection,
        *,
        network: str,
        samples: Tensor,
        low: Tensor | None = None,
        high: Tensor | None = None,
    ) -> None:
        """Remember the first transition that is not finite; :meth:`check` raises."""
        assert isinstance(rows, Span)
        note_nonfinite_(
            self.failed[network],
            values=eps.contiguous(),
            k=k.contiguous(),
            samples=samples,
            first=rows.first,
            low=low,
            high=self._everywhere[: rows.batch] if high is None else high,
        )

    def check(self) -> None:
        """Raise FloatingPointError if anything was not finite: it names the network, the samples,
        and the first such transition of each. Waits for the device.
        """
        # What comes first is the cause; within a round the drafter does.
        network = min(self.failed, key=lambda name: (int(self.failed[name].min()), name))
        first = self.failed[network]
        bad = (first < self.steps).nonzero().squeeze(1)
        if len(bad):
            raise FloatingPointError(
                f"{network} returned a non-finite eps at step "
                f"{sorted(set(first[bad].tolist()))} for sample {bad.tolist()}"
            )

    def clear(self) -> None:
        """Forget, for another run."""
        for first in self.failed.values():
            first.fill_(self.steps)
