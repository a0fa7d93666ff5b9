"""What the sampler asks of a rule for windows, and the rule of a fixed window.

A rule knows samples by their transitions, never their states.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from free.arguments import as_integer
from free.drafters.protocol import Drafter
from free.models.output import Teacher
from free.rounds.target import Target
from free.schedule.table import Table

Integers = NDArray[np.int64]


class Run(NamedTuple):
    """A run at its beginning.

    Attributes
    ----------
    model : callable
        The teacher that the sampler was given.
    target : Target
        The teacher, guided if the run is, as transitions.
    guided : bool
    drafter : Drafter or None
        That of this run, as ``begin`` returned it.
    owner : Drafter or None
        The sampler's, whose ``begin`` that was: it is the same in every run.
    table : Table
    labels, seeds : Tensor, shape [B], int64
    state : Tensor, shape [B, ...]
        Initial noise.
    sweeps : int, None or "auto"
        The sampler's.
    verifier : str
    """

    model: Teacher
    target: Target
    guided: bool
    drafter: Drafter | None
    owner: Drafter | None
    table: Table
    labels: Tensor
    seeds: Tensor
    state: Tensor
    sweeps: int | str | None
    verifier: str


class Choice(NamedTuple):
    """The next round, or several plain ones.

    Attributes
    ----------
    lengths : ndarray, shape [B], int64
        Rows of each sample, ``1 ..`` the transitions that it has left, at most the rule's
        ``largest``; 1 before the first round and for plain transitions.
    sweeps : int or None
    plain : int
        If not 0, the plain sampler makes so many transitions before the next choice; no sample may
        have fewer left. Before the first round 0 counts as 1.
    """

    lengths: Integers
    sweeps: int | None
    plain: int = 0


class Committed(NamedTuple):
    """The transitions that a round made.

    Attributes
    ----------
    k : ndarray, shape [B], int64
        Each sample's transition before the round.
    advance : ndarray, shape [B], int64
        Transitions made.
    deltas : ndarray, shape [B, W - 1], or None
        ``|m_hat - m| / sigma`` of those that were drafted; NaN of all others. None after plain
        transitions, and unless the rule learns from them.
    seconds : dict of str to float
        Of the round, by phase.
    going : ndarray, shape [B], bool
        Samples that are not finished.
    """

    k: Integers
    advance: Integers
    deltas: NDArray[np.float64] | None
    seconds: dict[str, float]
    going: NDArray[np.bool_]

    @classmethod
    def of(
        cls,
        k: Integers,
        advance: Integers,
        deltas: Tensor | None,
        seconds: dict[str, float],
        going: NDArray[np.bool_],
    ) -> Committed:
        """With deltas that are a tensor, wherever that is."""
        found = None if deltas is None else deltas.double().cpu().numpy()
        return cls(k, advance, found, seconds, going)


class Windows(Protocol):
    """The windows of one run."""

    @property
    def learns(self) -> bool:
        """Whether :meth:`made` needs deltas; the seeds of a batch must then be distinct."""

    def choose(self, k: Integers, known: Integers | None) -> Choice:
        """Choose the next round.

        **Exactness rule.** The choice may depend on transitions that are *committed*, on costs
        and on chance of its own, but never on noise that is still to be used, nor on the teacher's
        output at a discarded state: else a draft sees its own noise, in the length of its window.

        Parameters
        ----------
        k : ndarray, shape [B], int64
            Next transition of each unfinished sample.
        known : ndarray, shape [B], int64, or None
            Rows of the last teacher call that are recycled: that of the last transition, and those
            of the next ones. None before the first round, when there is nothing to draft from.
        """

    def made(self, committed: Committed) -> None:
        """Learn from the round that was chosen."""


@runtime_checkable
class WindowRule(Protocol):
    """How many teacher rows each sample gets; anything of this form serves.

    Attributes
    ----------
    largest : int
        Rows of a window, at most.
    """

    largest: int

    def begin(self, run: Run) -> Windows:
        """Start a run."""


class FixedWindow:
    """The rule of a fixed number of rows, or as many as a sample has transitions left.

    Parameters
    ----------
    rows : int
        Rows of a window, >= 1.
    """

    def __init__(self, rows: int) -> None:
        self.largest = as_integer(rows, "rows must be an integer >= 1", 1)

    def begin(self, run: Run) -> Windows:
        """Start a run; its length and sweeps are all that matters."""
        sweeps, steps = None if isinstance(run.sweeps, str) else run.sweeps, len(run.table.sigma)
        return FixedWindows(min(self.largest, steps), steps, sweeps)


class FixedWindows(NamedTuple):
    """Windows of ``rows`` for one run of ``steps`` transitions."""

    rows: int
    steps: int
    sweeps: int | None
    learns: bool = False

    def choose(self, k: Integers, known: Integers | None) -> Choice:
        """A plain transition, then windows of the same rows; of 1 row, plain transitions only."""
        if known is None or self.rows == 1:
            left = self.steps - int(k.max())
            return Choice(np.ones_like(k), None, left if self.rows == 1 else 1)
        return Choice(np.minimum(self.steps - k, self.rows), self.sweeps)

    def made(self, committed: Committed) -> None:
        """Learn nothing."""


def check_choice(choice: Choice, left: Integers, widest: int) -> None:
    """Refuse a choice that no round can carry out.

    Parameters
    ----------
    choice : Choice
    left : ndarray, shape [B], int64
        Transitions that each sample has left.
    widest : int
        Rows of a window, at most: the rule's ``largest``, and 1 before the first round.

    Raises
    ------
    TypeError, ValueError
        Naming what was chosen.
    """
    if not isinstance(choice, Choice):
        raise TypeError(f"window must choose a Choice, got {choice!r}")
    lengths, most = np.asarray(choice.lengths), np.minimum(left, widest)
    if lengths.dtype.kind != "i" or lengths.shape != left.shape:
        raise ValueError(
            f"window must choose {len(left)} lengths, integers, one a sample, "
            f"got {lengths.dtype} of shape {list(lengths.shape)}"
        )
    # Looked at in every round, where each of numpy's functions counts.
    if np.minimum.reduce(np.minimum(lengths - 1, most - lengths)) < 0:
        raise ValueError(
            f"window must choose lengths of 1 to {most.tolist()} here, got {lengths.tolist()}"
        )
    if not choice.plain:
        return
    if not 0 < choice.plain <= left.min():
        raise ValueError(
            f"window must choose 0 to {int(left.min())} plain transitions, got {choice.plain}"
        )
    if (lengths > 1).any():
        raise ValueError(
            "window must choose lengths of 1 with plain transitions, which have no drafts, "
            f"got {lengths.tolist()}"
        )
