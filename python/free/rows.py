"""Which rows of a window the networks are asked about: the wanted ones, or all."""

from __future__ import annotations

from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from free.models.output import require_finite

__all__ = ["EveryRow", "Picked", "Rows", "WantedRows"]


class Picked(NamedTuple):
    """Rows of windows, sample by sample.

    Attributes
    ----------
    b, i : Tensor, shape [R], int64
        Samples and positions.
    span : tuple of int or None
        If they are the positions ``span[0] .. span[1] - 1`` of every sample, these two.
    """

    b: Tensor
    i: Tensor
    span: tuple[int, int] | None = None

    def take(self, windows: Tensor) -> Tensor:
        """The rows [R, ...] of ``windows [B, P, ...]``."""
        if self.span is None:
            return windows[self.b, self.i]
        return windows[:, slice(*self.span)].flatten(0, 1)

    def put(self, windows: Tensor, rows: Tensor) -> Tensor:
        """``windows`` with ``rows`` in their places; the given ones may be written to."""
        if self.span is None:
            windows[self.b, self.i] = rows
            return windows
        rows = rows.unflatten(0, (len(windows), -1))
        if rows.shape == windows.shape:
            return rows
        windows[:, slice(*self.span)] = rows
        return windows


class Rows(Protocol):
    """A way to pick rows of windows ``[B, P]``."""

    def of(self, wanted: Tensor, first: int, end: int) -> Picked:
        """Of positions ``first .. end - 1`` at least the rows where ``wanted [B, P]``, which is
        False elsewhere.
        """

    def any(self, wanted: Tensor) -> bool:
        """Whether there may be any."""

    def require_finite(
        self, eps: Tensor, network: str, k: Tensor, samples: Tensor, wanted: Tensor
    ) -> None:
        """Refuse a network's output at rows ``wanted [R]`` that has NaN or inf; ``k`` and
        ``samples``, [R], are what the error names.
        """


class WantedRows:
    """The wanted ones. Looks at values, so that the host waits for the device."""

    def of(self, wanted: Tensor, first: int, end: int) -> Picked:
        """Exactly those."""
        b, i = wanted.nonzero(as_tuple=True)
        return Picked(b, i)

    def any(self, wanted: Tensor) -> bool:
        """Whether there are."""
        return bool(wanted.any())

    def require_finite(
        self, eps: Tensor, network: str, k: Tensor, samples: Tensor, wanted: Tensor
    ) -> None:
        """At once.

        Raises
        ------
        FloatingPointError
            Naming the network, the transitions and the samples.
        """
        require_finite(eps, network, k, samples)


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

    def of(self, wanted: Tensor, first: int, end: int) -> Picked:
        """All of the span."""
        rows = torch.arange(len(wanted) * (end - first), device=wanted.device)
        return Picked(rows // (end - first), first + rows % (end - first), (first, end))

    def any(self, wanted: Tensor) -> bool:
        """There may be."""
        return True

    def require_finite(
        self, eps: Tensor, network: str, k: Tensor, samples: Tensor, wanted: Tensor
    ) -> None:
        """Remembers; :meth:`check` raises."""
        total = eps.flatten(1).sum(1, dtype=torch.promote_types(eps.dtype, torch.float32))
        bad = ((total - total) != 0) & wanted  # of what is not finite, that is NaN
        step = torch.where(bad, k, self.steps)
        self.failed[network].scatter_reduce_(0, samples, step, "amin")

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
