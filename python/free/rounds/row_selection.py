"""Which rows of a window the networks are asked about: the wanted ones, or all.

Wanted of each sample are positions in a row, from ``low [B]`` up to ``high [B]``.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from free.models.output import require_finite
from free.ops import note_nonfinite_

__all__ = ["EveryRow", "Listed", "Picked", "Rows", "Span", "WantedRows"]


class Listed(NamedTuple):
    """Some rows of windows, sample by sample.

    Attributes
    ----------
    b, i : Tensor, shape [R], int64
        Samples and positions.
    """

    b: Tensor
    i: Tensor

    def take(self, windows: Tensor) -> Tensor:
        """The rows [R, ...] of ``windows [B, P, ...]``."""
        return windows[self.b, self.i]

    def each(self, column: Tensor) -> Tensor:
        """Of every row its sample's entry of ``column [B, ...]``."""
        return column[self.b]

    def put(self, rows: Tensor, windows: Tensor) -> Tensor:
        """``windows [B, P, ...]`` with ``rows`` in their places; the given ones are written to."""
        windows[self.b, self.i] = rows
        return windows

    def windows(self, rows: Tensor, batch: int, width: int) -> Tensor:
        """Windows [B, P, ...] of these rows, 0 elsewhere."""
        return self.put(rows, rows.new_zeros(batch, width, *rows.shape[1:]))


class Span(NamedTuple):
    """Positions ``first .. end - 1`` of every sample's window.

    Attributes
    ----------
    batch : int
        B.
    first, end : int
    device : torch.device
    """

    batch: int
    first: int
    end: int
    device: torch.device

    @property
    def b(self) -> Tensor:
        """As of :class:`Listed`."""
        return self.each(torch.arange(self.batch, device=self.device))

    @property
    def i(self) -> Tensor:
        """As of :class:`Listed`."""
        return torch.arange(self.first, self.end, device=self.device).repeat(self.batch)

    def take(self, windows: Tensor) -> Tensor:
        """As of :class:`Listed`."""
        return windows[:, self.first : self.end].flatten(0, 1)

    def each(self, column: Tensor) -> Tensor:
        """As of :class:`Listed`."""
        shape = (self.batch, self.end - self.first, *column.shape[1:])
        return column.unsqueeze(1).expand(shape).flatten(0, 1)

    def put(self, rows: Tensor, windows: Tensor) -> Tensor:
        """As of :class:`Listed`; the rows themselves where they are all there are."""
        rows = rows.unflatten(0, (self.batch, -1))
        if rows.shape == windows.shape:
            return rows
        windows[:, self.first : self.end] = rows
        return windows

    def windows(self, rows: Tensor, batch: int, width: int) -> Tensor:
        """As of :class:`Listed`; a view where they are all there are."""
        if self.end - self.first == width:
            return rows.unflatten(0, (batch, width))
        return self.put(rows, rows.new_zeros(batch, width, *rows.shape[1:]))


Picked = Listed | Span


class Rows(Protocol):
    """A way to pick rows of windows."""

    def of(self, low: Tensor | None, high: Tensor, first: int, end: int) -> Picked:
        """Of positions ``first .. end - 1`` at least those from ``low [B]``, or 0, to ``high [B]``,
        exclusive.
        """

    def any(self, low: Tensor | None, high: Tensor, first: int, end: int) -> bool:
        """Whether there may be such."""

    def require_finite(
        self,
        eps: Tensor,
        network: str,
        k: Tensor,
        rows: Picked,
        samples: Tensor,
        low: Tensor | None = None,
        high: Tensor | None = None,
    ) -> None:
        """Refuse a network's output ``eps [R, ...]`` at these ``rows`` of transitions ``k [R]`` if
        it has NaN or inf where it is wanted: from ``low [B]`` to ``high [B]``, or everywhere.
        ``samples [B]`` are what the error names.
        """


class WantedRows:
    """The wanted ones. Looks at values, so that the host waits for the device."""

    def of(self, low: Tensor | None, high: Tensor, first: int, end: int) -> Listed:
        """Exactly those."""
        b, i = _within(low, high, first, end).nonzero(as_tuple=True)
        return Listed(b, i + first if first else i)

    def any(self, low: Tensor | None, high: Tensor, first: int, end: int) -> bool:
        """Whether there are."""
        return bool(_within(low, high, first, end).any())

    def require_finite(
        self,
        eps: Tensor,
        network: str,
        k: Tensor,
        rows: Picked,
        samples: Tensor,
        low: Tensor | None = None,
        high: Tensor | None = None,
    ) -> None:
        """At once.

        Raises
        ------
        FloatingPointError
            Naming the network, the transitions and the samples.
        """
        require_finite(eps, network, k, rows.each(samples))


def _within(low: Tensor | None, high: Tensor, first: int, end: int) -> Tensor:
    """[B, end - first] bool."""
    step = torch.arange(first, end, device=high.device)
    below = step < high[:, None]
    return below if low is None else below & (step >= low[:, None])


class EveryRow:
    """All of them, wanted or not: every round has the same shapes, and nothing is looked at.

    What is computed at unwanted rows is thrown away by whoever wanted the others.

    Parameters
    ----------
    samples : int
        How many of the run there are; ``samples`` of :meth:`require_finite` are below.
    steps : int
        N.
    device : torch.device

    Attributes
    ----------
    failed : dict of str to Tensor, shape [samples], int64
        By network, the first transition at which it was not finite; N where it always was.
    """

    def __init__(self, samples: int, steps: int, device: torch.device) -> None:
        self.steps = steps
        self.failed = {
            network: torch.full((samples,), steps, device=device)
            for network in ("teacher", "drafter")
        }
        self._everywhere = torch.full((samples,), steps, device=device)

    def of(self, low: Tensor | None, high: Tensor, first: int, end: int) -> Span:
        """All of the span."""
        return Span(len(high), first, end, high.device)

    def any(self, low: Tensor | None, high: Tensor, first: int, end: int) -> bool:
        """There may be."""
        return True

    def require_finite(
        self,
        eps: Tensor,
        network: str,
        k: Tensor,
        rows: Picked,
        samples: Tensor,
        low: Tensor | None = None,
        high: Tensor | None = None,
    ) -> None:
        """Remembers; :meth:`check` raises."""
        assert isinstance(rows, Span)
        high = self._everywhere[: rows.batch] if high is None else high
        eps = eps.float() if eps.dtype is torch.float64 else eps
        note = (self.failed[network], eps.contiguous(), k.contiguous(), samples)
        note_nonfinite_(*note, rows.first, low, high)

    def check(self) -> None:
        """Raise if anything was not finite. Waits for the device.

        Raises
        ------
        FloatingPointError
            Naming the network, the first such transition of each sample, and the samples.
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
