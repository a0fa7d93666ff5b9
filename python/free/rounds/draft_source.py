"""Where the draft of a recycled transition comes from, and which source has proved best.

The teacher has seen the transition once, at a discarded state ``x_old`` near the new one. A draft
may

- ``response``: take what the teacher said there, plus a multiple of ``x - x_old``; by which one the
  teacher's prediction follows a state is measured where it has seen a transition twice;
- ``control_variate``: add how much the *drafter's* prediction differs between the two states;
- ``reuse``: take it as it is;
- ``drafter``: take the drafter's own prediction, which still profits from the teacher's feature
  one step before.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from free.ops import response_sums
from free.reference.draft import DRAFTER, SOURCES
from free.rounds.state import Evidence, Recycled
from free.schedule.table import Prediction

if TYPE_CHECKING:
    from free.rounds.state import Draft

__all__ = [
    "SourceChoice",
    "with_round",
]

#: Weight that a round's evidence keeps in the next one: about the last five rounds count.
_MEMORY = 0.8

#: Sources may say the same, as the control variate and reuse of a frozen drafter do. Rounding,
#: which depends on the batch, must not choose: the earlier one must be worse by this much.
_TIE = 1e-3


class SourceChoice:
    """Which source drafts what is recycled.

    Only evidence of transitions that are *committed* may be summed up. What the teacher says behind
    a rejection depends on noises that are still to be used: an average over such rows would tell
    the draft of an earlier transition about its own noise.

    Parameters
    ----------
    recycle : bool or str
        One of :data:`SOURCES`, to use it always; True to choose by the evidence; False if nothing
        is recycled.
    """

    def __init__(self, recycle: bool | str) -> None:
        self.compares = recycle is True
        """Whether the sources are to be compared."""
        self.learns = recycle in (True, "response")
        """Whether evidence is used at all."""
        self.corrects = recycle in (True, "control_variate")
        """Whether the control variate may be chosen."""
        self._source = SOURCES.index(recycle) if isinstance(recycle, str) else DRAFTER

    def of(self, sums: Evidence) -> Tensor:
        """The source of each sample's next window, [B] int64; at first the response."""
        if self.compares:
            order = torch.arange(len(SOURCES), device=sums.rejected.device)
            return (sums.rejected + _TIE * order).argmin(1)
        return torch.full_like(sums.dot, self._source, dtype=torch.int64)


def with_round(
    sums: Evidence,
    draft: Draft,
    prediction: Prediction,
    past: Recycled,
    teacher: Tensor,
    length: Tensor,
    advance: Tensor,
) -> Evidence:
    """The sums with what a round tells: committed transitions only (see :class:`SourceChoice`).
    Older evidence fades.

    Parameters
    ----------
    sums : Evidence
    draft : Draft
    prediction : Prediction
    past : Recycled
        What the round was drafted from.
    teacher : Tensor, shape [B, W, ...]
        What the teacher predicted, as a guess.
    length, advance : Tensor, shape [B], int32
    """
    seen = (past.rows.x, past.guess, past.row, past.known, length, advance)
    response = response_sums(draft.states, teacher, *seen, sums.dot, sums.square, _MEMORY)
    if draft.candidates is None:
        return Evidence(sums.rejected, *response)
    at, drafts = draft.at[:, :-1], draft.means.shape[1]
    seen_twice = torch.minimum(torch.minimum(advance, length - 1), past.known - 1)
    counted = torch.arange(drafts, device=at.device) < seen_twice[:, None]
    error = (draft.candidates - teacher[:, :drafts]).flatten(3).norm(dim=3)
    delta = error * (prediction.b[at].abs() / prediction.sigma[at])
    # 1 - 2 Phi(-delta / 2)
    rejected = torch.where(counted, torch.erf(delta / math.sqrt(8.0)), 0.0).sum(-1).T
    return Evidence(_MEMORY * sums.rejected + rejected, *response)
