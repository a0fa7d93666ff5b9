"""What a window may reuse of the teacher's previous call.

The teacher saw a whole window; behind a rejection its outputs belong to states that were
discarded. They are kept: with the noises that belong to the transitions, the next window passes
close by those states, and what the teacher said there is nearly what it would say again.

Kept are the rows of one teacher call, at most ``B W`` of them: eps, state, the guess that they
amount to, and the feature, ``B W (12 D + bytes(feature))`` bytes in float32 (and the variance
channels of a network that has them). "Moving a row to the
front" is an index.
"""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

from free.models.output import TeacherRows
from free.ops import recycled_rows

__all__ = ["Recycled", "recycle"]


class Recycled(NamedTuple):
    """The teacher's last call, as seen from each sample's next window.

    Attributes
    ----------
    rows : TeacherRows
        All rows of the call.
    guess : Tensor, shape [R, ...]
        What was predicted there, as drafts guess it (:class:`free.prediction.Prediction`).
    row : Tensor, shape [B, W], int64
        Entry ``i`` of a sample with next transition ``k``: its row of transition ``k - 1 + i``,
        or its last one where there is none. Entry 0 is the transition just made.
    known : Tensor, shape [B], int64, in ``1 .. W``
        How many entries are of their own transition; the others repeat the last of these.
    """

    rows: TeacherRows
    guess: Tensor
    row: Tensor
    known: Tensor

    @property
    def bytes(self) -> int:
        """Memory of the rows."""
        kept = (*self.rows, self.guess)
        return sum(part.numel() * part.element_size() for part in kept if part is not None)

    def keep(self, samples: Tensor) -> Recycled:
        """Of these samples only: a mask [B], or places."""
        return self._replace(row=self.row[samples], known=self.known[samples])


def recycle(
    rows: TeacherRows,
    guess: Tensor,
    length: Tensor,
    advance: Tensor,
    width: int,
    discarded: bool,
    stride: int | None = None,
) -> Recycled:
    """Shift a teacher call by what each sample advanced.

    Parameters
    ----------
    rows : TeacherRows
        The call; the rows of a sample follow each other, and samples too.
    guess : Tensor, shape [R, ...]
    length, advance : Tensor, shape [B], int32
        Rows of each sample, and transitions made of them, ``1 .. length``.
    width : int
        W of the next window.
    discarded : bool
        Whether rows behind a rejection are kept; otherwise only that of the transition made.
    stride : int or None
        Rows from a sample's first to the next one's; None where that is ``length``.
    """
    return Recycled(rows, guess, *recycled_rows(length, advance, width, discarded, stride))
