"""How likely drafts are to stand: a drafter's record, corrected by each sample's own transitions.

A draft stands with probability ``2 Phi(-delta / 2)``, ``delta = |m_hat - m| / sigma`` (supplement,
Eq. 40). The delta to expect depends on the part of the run, on whether the teacher has already seen
the transition, at a discarded state, and on the distance from the last row that it has seen.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

Floats = NDArray[np.float64]

Integers = NDArray[np.int64]

#: Parts of a run, from noise to image, and distances: each bucket begins at one of these.
PARTS = 16

DISTANCES = np.array([1, 2, 3, 4, 6, 8, 12, 16, 24])

#: The bucket of each distance up to the beginning of the last.
_BUCKETS = np.searchsorted(DISTANCES, np.arange(DISTANCES[-1] + 1), side="right") - 1

FRESH, RECYCLED = 0, 1

#: Weight that a run's own evidence keeps from round to round; and the weight beside it, in
#: transitions, of a drafter's record and of the common one.
_MEMORY, _BELIEF, _DOUBT = 0.8, 3.0, 0.5

#: Largest error of a record, in logarithm.
_LARGEST_ERROR = math.log(1e3)


def acceptance(delta: Floats) -> Floats:
    """``2 Phi(-delta / 2)``: the probability that reflection keeps a draft (supplement, Eq. 40)."""
    return torch.special.erfc(torch.from_numpy(delta / math.sqrt(8.0))).numpy()


def equivalent(rejection: Floats) -> Floats:
    """Delta of a draft that is rejected with probability ``rejection``, in [0, 1].

    This is the inverse of ``1 - acceptance(delta)``; 0 and 1 are taken as values close to them.
    """
    inside = np.clip(rejection, 1e-9, 1.0 - 1e-12)
    return math.sqrt(8.0) * torch.special.erfinv(torch.from_numpy(inside)).numpy()


def reached(delta: Floats, verifier: str = "reflection") -> Floats:
    """Probability that a draft of a window and all before it stand.

    For reflection the product of their acceptances; within a tolerance the least of them. For block
    verification it is the mean of the running likelihood ratio capped at 1, ``p_j``
    (docs/verification.md); it lies between that product and ``2 Phi(-|delta| / 2)``, the overlap of
    the drafts' joint laws, and this is a geometric mean of the two, right to 1 % for equal deltas.

    Parameters
    ----------
    delta : ndarray, shape [..., P]
        Inf where there is no draft.
    verifier : str
    """
    if verifier == "tolerance":  # offsets grow along a window, and with them all stand or none
        return np.minimum.accumulate(acceptance(delta), axis=-1)
    one_by_one = acceptance(delta).cumprod(-1)
    if verifier != "block":
        return one_by_one
    jointly = acceptance(np.sqrt(np.square(delta).cumsum(-1)))
    share = 0.63 * np.arange(1, delta.shape[-1] + 1) ** -0.385
    share[:1] = 1.0
    return np.minimum.accumulate(one_by_one**share * jointly ** (1.0 - share), axis=-1)


class AcceptanceRecord:
    """Deltas to expect of a drafter.

    Parameters
    ----------
    log_delta : array_like, shape [2, len(DISTANCES), PARTS], optional
        ``ln delta`` of the drafts' mean rejection (:func:`equivalent`): of transitions that the
        teacher has not seen, by their distance from the last one that it has; and of those it has,
        by their place in the window. Each in parts of the run. The default fits many drafters, and
        is given little weight.

    Raises
    ------
    ValueError
        If ``log_delta`` has another shape or is not finite.
    """

    def __init__(self, log_delta: Any = None) -> None:
        shape = (2, len(DISTANCES), PARTS)
        self.belief = _DOUBT if log_delta is None else _BELIEF
        if log_delta is None:
            fresh = math.log(0.4) + 0.7 * np.log(DISTANCES)
            recycled = math.log(0.15) + 0.3 * np.log(DISTANCES)
            log_delta = np.repeat(np.stack([fresh, recycled])[:, :, None], PARTS, axis=2)
            log_delta[..., -2:] += math.log(2.0)  # the last steps are the hardest
        try:
            self.log_delta = np.asarray(log_delta, dtype=np.float64)
        except (TypeError, ValueError) as error:
            raise ValueError(
                f"log_delta must be numbers of shape {shape}, got {log_delta!r}"
            ) from error
        if self.log_delta.shape != shape or not np.isfinite(self.log_delta).all():
            raise ValueError(
                f"log_delta must be finite, of shape {shape}, got shape {self.log_delta.shape}"
            )

    def at(self, kind: Integers, distance: Integers, part: Integers) -> Floats:
        """``ln delta`` to expect; arguments of one shape."""
        return self.log_delta[kind, bucket_of(distance), part]

    @classmethod
    def of(cls, sums: Floats, counts: Floats) -> AcceptanceRecord:
        """Make a record from drafts; a cell without any takes the nearest shorter distance's.

        Parameters
        ----------
        sums, counts : ndarray, shape [2, len(DISTANCES), PARTS]
            Sums of ``1 - acceptance(delta)`` over drafts, and their number.

        Raises
        ------
        ValueError
            If there was no draft at all.
        """
        if not counts.sum():
            raise ValueError("counts must not all be 0: no draft was recorded")
        # A prior of one observation: the mean over the kind, or over all.
        overall = sums.sum() / counts.sum()
        by_kind = sums.sum((1, 2)) + overall
        by_kind = (by_kind / (counts.sum((1, 2)) + 1))[:, None, None]
        record = (sums + by_kind) / (counts + 1)
        for bucket in range(1, len(DISTANCES)):
            empty = counts[:, bucket] == 0
            record[:, bucket] = np.where(empty, record[:, bucket - 1], record[:, bucket])
        return cls(np.log(equivalent(record)))

    def to_list(self) -> list[Any]:
        """The record as JSON values."""
        return np.round(self.log_delta, 3).tolist()


def read_records(stored: Mapping[str, Any]) -> dict[int | None, AcceptanceRecord]:
    """Read records by number of sweeps from a drafter's ``config.json``; "0" is autoregression.

    Raises
    ------
    ValueError
        If ``stored`` is something else.
    """
    try:
        return {int(sweeps) or None: AcceptanceRecord(table) for sweeps, table in stored.items()}
    except (AttributeError, ValueError) as error:
        raise ValueError(
            f"acceptance must hold a table for each number of sweeps: {error}"
        ) from error


def write_records(records: Mapping[int | None, AcceptanceRecord]) -> dict[str, Any]:
    """The inverse of :func:`read_records`."""
    return {str(sweeps or 0): record.to_list() for sweeps, record in records.items()}


class AcceptanceEstimate:
    """Deltas to expect in a run, for each sample by its own committed transitions.

    Parameters
    ----------
    samples : int
    steps : int
        Transitions of the run.
    """

    def __init__(self, samples: int, steps: int) -> None:
        self._steps = steps
        self._sum, self._weight = np.zeros((2, samples, 2))  # of errors, by sample and kind

    def expect(self, record: AcceptanceRecord, k: Integers, known: Integers, drafts: int) -> Floats:
        """Delta of each draft.

        Parameters
        ----------
        record : AcceptanceRecord
            Of the number of sweeps.
        k : ndarray, shape [B], int64
            See :meth:`free.window.Windows.choose`, also for ``known``.
        known : ndarray, shape [..., B], int64
            Also several alternatives.
        drafts : int
            P; delta is infinite past the last transition.

        Returns
        -------
        ndarray, shape [..., B, P]
        """
        kind, distance, part = places(k, known, drafts, self._steps)
        correction = self._sum / (self._weight + record.belief)
        fresh, recycled = correction[:, :1], correction[:, 1:]
        log_delta = record.at(kind, distance, part) + np.where(kind == FRESH, fresh, recycled)
        last = self._steps - 1
        drafted = k[:, None] + np.arange(drafts) < last
        return np.where(drafted, np.exp(log_delta), np.inf)

    def update(
        self, record: AcceptanceRecord, k: Integers, known: Integers, deltas: Floats
    ) -> None:
        """Learn from committed transitions; ``deltas [B, P]``, NaN where there was no draft."""
        kind, distance, part = places(k, known, deltas.shape[1], self._steps)
        log_delta = record.at(kind, distance, part)
        decided = ~np.isnan(deltas)
        error = np.log(np.maximum(np.where(decided, deltas, 1.0), 1e-8)) - log_delta
        error = np.minimum(np.maximum(error, -_LARGEST_ERROR), _LARGEST_ERROR)
        self._sum, self._weight = _MEMORY * self._sum, _MEMORY * self._weight
        # The mean rejection follows the mean of delta, ln E[exp(error)], not E[error]; of normal
        # errors the weights exp(error / 2) give just that.
        weight = np.where(decided, np.maximum(np.exp(error / 2.0), 0.5), 0.0)
        for column in (FRESH, RECYCLED):
            own = np.where(kind == column, weight, 0.0)
            self._sum[:, column] += (own * error).sum(1)
            self._weight[:, column] += own.sum(1)

    def keep(self, samples: NDArray[np.bool_]) -> None:
        """Select samples by mask."""
        self._sum, self._weight = self._sum[samples], self._weight[samples]


def places(
    k: Integers, known: Integers, drafts: int, steps: int
) -> tuple[Integers, Integers, Integers]:
    """Kind and distance, [..., B, P], and part of the run, [B, P], of each draft of windows; int64.

    Parameters are those of :meth:`AcceptanceEstimate.expect`.
    """
    place, rows = np.arange(drafts), known[..., None]
    recycled = place < rows - 1
    kind = np.where(recycled, RECYCLED, FRESH)
    distance = np.where(recycled, place + 1, place + 2 - rows)
    part = np.minimum((k[:, None] + place) * PARTS // steps, PARTS - 1)
    return kind, distance, part


def bucket_of(distance: Integers) -> Integers:
    """Index of each distance, >= 1, into :data:`DISTANCES`."""
    return _BUCKETS[np.minimum(distance, DISTANCES[-1])]
