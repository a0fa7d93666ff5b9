"""A window while it is drafted: begun from first guesses, then rolled from what a drafter says.

This room calls no network.
"""

from __future__ import annotations

import torch
from torch import Tensor

from free.drafters.protocol import WindowPlan
from free.ops import first_guesses, roll_window_
from free.rounds.state import Samples
from free.schedule.table import Table


class DraftedWindow:
    """States, means and guesses of a window of P drafted transitions.

    Entry ``i`` of ``states`` and ``guesses``, [B, P + 1, ...], is the state before transition
    ``k + i``, and the guess of the transition that led there; ``means [B, P, ...]`` are those of
    transitions ``k + i``, and ``mean_before [B, ...]`` of the one before. ``k [B, P + 1]`` are the
    transitions; beyond the schedule, its last. The first ``settled [B]`` guesses stand, so that
    the drafter is not asked about them; ``said [B, P, ...]`` is what it has said so far.

    Made from ``noise [B, P, ...]``, the drafts' z, the ``source`` of recycled transitions
    (:mod:`free.rounds.draft_source`), and what the drafter ``says``: see
    :func:`free.ops.roll_window_`. It is ``rolled`` from its first guesses at once, or later.
    """

    def __init__(
        self,
        samples: Samples,
        noise: Tensor,
        table: Table,
        *,
        source: int,
        says: str,
        rolled: bool = True,
    ) -> None:
        self.samples, self.noise, self.table, self._says = samples, noise, table, says
        past, response = samples.past, samples.response
        first = first_guesses(
            samples.x,
            samples.k,
            past_x=past.rows.x,
            past_guess=past.guesses,
            row=past.row,
            known=past.known,
            source=source,
            dot=response.dot,
            square=response.square,
            columns=table.columns,
            drafts=noise.shape[1],
            noise=noise if rolled and table.mixture is None else None,
            clip=table.clip,
        )
        self.states, self.means, self.guesses = first.states, first.means, first.guesses
        self.mean_before = first.mean_before
        self.intercept, self.slope, self.settled = first.intercept, first.slope, first.settled
        self.k = first.at
        self._coefficients, self.sigma = first.coefficients, first.coefficients[3]
        self.said: Tensor | None = None
        if rolled and table.mixture is not None:
            self.roll(0, noise.shape[1], drafted=False)

    def roll(self, first: int, end: int, *, drafted: bool) -> None:
        """Roll states, means and guesses of transitions ``first .. end - 1``: from what the drafter
        says, where it is asked and has been ``drafted``, else from first guesses.
        """
        if self.table.mixture is None:
            self._roll(first, end, drafted)
            return
        # The target has the sigma of the state where its transition starts; so must the draft.
        for j in range(first, end):
            self.sigma[:, j] = self.table.sigma_at(self.k[:, j], self.states[:, j])
            self._roll(j, j + 1, drafted)

    def _roll(self, first: int, end: int, drafted: bool) -> None:
        roll_window_(
            self.states,
            self.means,
            self.guesses,
            noise=self.noise,
            intercept=self.intercept,
            slope=self.slope,
            change=self.said if drafted else None,
            settled=self.settled if drafted else None,
            says=self._says,
            coefficients=self._coefficients,
            clip=self.table.clip,
            first=first,
            end=end,
        )

    def plan(self, drafted: Tensor) -> WindowPlan:
        """The window before the drafter is asked, for one that drafts it whole; ``drafted [B]``
        transitions are wanted.
        """
        P, past = self.noise.shape[1], self.samples.past
        a, b, *_ = self._coefficients.unbind()
        step = torch.arange(P, device=self.k.device)
        settled = step < self.settled[:, None]
        return WindowPlan(
            x=self.states[:, 0],
            k=self.k[:, :P],
            y=self.samples.y,
            noise=self.noise,
            a=a[:, :P],
            b=b[:, :P],
            sigma=self.sigma[:, :P],
            slope=self.slope,
            intercept=self.intercept,
            settled=settled,
            asked=(step < drafted[:, None]) & ~settled,
            guess_before=self.guesses[:, 0],
            mean_before=self.mean_before,
            rows=past.rows,
            row=past.row[:, :P],
            known=past.known,
        )
