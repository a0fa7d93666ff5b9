"""Where the draft of a recycled transition comes from, and which source has proved best.

The teacher has seen the transition once, at a discarded state ``x_old`` near the new one. A draft
may take what it said there (``reuse``), correct it by how much the drafter's prediction differs
between the two states (``control_variate``), or take the drafter's own prediction (``drafter``),
which still profits from the teacher's feature one step before.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from free.prediction import Prediction

if TYPE_CHECKING:
    from free.drafting import Draft

__all__ = ["CONTROL_VARIATE", "DRAFTER", "REUSE", "SOURCES", "SourceRecord", "evidence"]

SOURCES = ("control_variate", "reuse", "drafter")
CONTROL_VARIATE, REUSE, DRAFTER = range(3)

#: Weight that a round's evidence keeps in the next one: about the last five rounds count.
_MEMORY = 0.8


class SourceRecord:
    """How often each source's drafts would have been rejected, lately, for each sample.

    Only transitions that are *committed* may be recorded. What the teacher says behind a rejection
    depends on noises that are still to be used: an average over such rows would tell the draft of
    an earlier transition about its own noise.

    Parameters
    ----------
    samples : int
    recycle : bool or str
        One of :data:`SOURCES`, to use it always; True to choose by the record; False if nothing
        is recycled.
    device : torch.device
    """

    def __init__(self, samples: int, recycle: bool | str, device: torch.device) -> None:
        self.compares = recycle is True
        """Whether evidence is wanted."""
        self._source = SOURCES.index(recycle) if isinstance(recycle, str) else DRAFTER
        self._rejected = torch.zeros(samples, len(SOURCES), device=device)
        self._counted = torch.zeros(samples, 1, device=device)

    def choose(self) -> Tensor:
        """The source of each sample's next window, [B] int64; the control variate at first."""
        if not self.compares:
            return torch.full_like(self._counted[:, 0], self._source, dtype=torch.int64)
        return (self._rejected / self._counted.clamp(min=1e-6)).argmin(1)

    def update(self, rejection: Tensor, committed: Tensor) -> None:
        """Add a round's evidence.

        Parameters
        ----------
        rejection : Tensor, shape [3, B, P]
            Probability that each source's draft of each transition is rejected.
        committed : Tensor, shape [B, P], bool
            Transitions that were made, and that the teacher had seen before.
        """
        evidence = torch.where(committed, rejection, 0.0).sum(2).T
        self._rejected = _MEMORY * self._rejected + evidence
        self._counted = _MEMORY * self._counted + committed.sum(1, keepdim=True)

    def keep(self, samples: Tensor) -> None:
        """Forget all samples but these; ``samples [B]`` is a mask."""
        self._rejected, self._counted = self._rejected[samples], self._counted[samples]


def evidence(
    draft: Draft,
    prediction: Prediction,
    k: Tensor,
    target_means: Tensor,
    length: Tensor,
    advance: Tensor,
) -> tuple[Tensor, Tensor]:
    """How each source would have fared: the arguments of :meth:`SourceRecord.update`.

    Parameters
    ----------
    draft : Draft
        With candidates.
    prediction : Prediction
    k : Tensor, shape [B], int64
        Transitions before the round.
    target_means : Tensor, shape [B, W, ...]
    length, advance : Tensor, shape [B], int32

    Returns
    -------
    rejection : Tensor, shape [3, B, P]
        ``erf(delta / sqrt(8))`` of a draft around each candidate's mean.
    committed : Tensor, shape [B, P], bool
    """
    assert draft.candidates is not None
    P = draft.means.shape[1]
    step = torch.arange(P, device=k.device)
    at = (k[:, None] + step).clamp(max=len(prediction.sigma) - 1)
    a, b, sigma = (
        column[at].view(*at.shape, *[1] * (draft.means.dim() - 2))
        for column in (prediction.a, prediction.b, prediction.sigma)
    )
    means = a * draft.states[:, :P] + b * draft.candidates
    delta = ((means - target_means[:, :P]) / sigma).flatten(3).norm(dim=3)
    made = step < torch.minimum(advance, length - 1)[:, None]
    return torch.erf(delta / math.sqrt(8.0)), made & draft.recycled
