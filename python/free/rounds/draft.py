"""Drafting: the states a round proposes, and the means they were drawn around."""

from __future__ import annotations

import torch
from torch import Tensor

from free.drafters.protocol import Drafter, drafts_windows

CONTROL_VARIATE = -1  # is going
from free.rounds.drafted_window import DraftedWindow
from free.rounds.row_selection import Rows, WantedRows
from free.rounds.state import Draft, Evidence, Recycled
from free.schedule.table import Prediction

__all__ = [
    "draft_window",
]


def draft_window(
    drafter: Drafter,
    prediction: Prediction,
    x: Tensor,
    k: Tensor,
    y: Tensor,
    past: Recycled,
    noise: Tensor,
    length: Tensor,
    sweeps: int | None,
    source: Tensor,
    sums: Evidence,
    compare: bool,
    corrects: bool = True,
    samples: Tensor | None = None,
    rows: Rows | None = None,
) -> Draft:
    """Draft up to ``W - 1`` transitions: guess, roll the states forward, guess again.

    The first guess is what the teacher said in its last call, of the transition itself or of the
    last one there is. With ``sweeps``, each sweep evaluates the drafter at the whole window in one
    call, then rolls the window from the new guesses. Without, the drafter is called transition by
    transition (autoregression, the paper's way), which ``W - 1`` sweeps reproduce.

    **Exactness rule.** The draft of transition ``j`` is ``m_hat_j + sigma_j z_j``. Its mean may
    depend on the state, on earlier teacher calls, and on ``z_0 .. z_{j-1}``; it never sees ``z_j``
    or later noise, nor a uniform that is still to be used. Then the draft is a draw from
    N(m_hat_j, sigma_j^2), which is all that verification needs. The teacher's recycled output of
    transition ``j`` is allowed, though that state was discarded: it depends on earlier noises
    only.

    Parameters
    ----------
    drafter : Drafter
        A :class:`WindowDrafter` is given the whole window, where it can; a :class:`ChangeDrafter`
        is asked for changes, which add up along the window.
    prediction : Prediction
        The schedule, in terms of what is guessed.
    x : Tensor, shape [B, ...], float32
        Current states.
    k : Tensor, shape [B], int64
        Their transitions.
    y : Tensor, shape [B], int64
        Labels.
    past : Recycled
        The teacher's last call.
    noise : Tensor, shape [B, W - 1, ...], float32
        The drafts' noises z.
    length : Tensor, shape [B], int32 or int64
        Rows wanted of each sample, ``0 .. W``; ``length - 1`` transitions are drafted. Results at
        and beyond are undefined.
    sweeps : int or None
        Drafter calls, each for the whole window; None for one after the other.
    source : Tensor, shape [B], int64
        Which source drafts recycled transitions (:mod:`free.rounds.draft_source`).
    sums : Evidence
        By how much the teacher's prediction follows its state.
    compare : bool
        Whether to return what every source would have guessed.
    corrects : bool
        Whether ``source`` may be the control variate, which asks the drafter at discarded states
        too.
    samples : Tensor, shape [B], int64, optional
        What errors call the samples; default ``0 .. B - 1``.
    rows : Rows, optional
        Which rows the drafter is asked about; default :class:`free.rounds.row_selection.WantedRows`.

    Returns
    -------
    Draft

    Raises
    ------
    FloatingPointError
        If the drafter's output is not finite.
    TypeError, ValueError
        If the drafter's output or carry is not what the protocol says, or a :class:`ChangeDrafter`
        is given a schedule without x0.
    """
    P = noise.shape[1]
    samples = torch.arange(len(x), device=x.device) if samples is None else samples
    rows = WantedRows() if rows is None else rows
    window = DraftedWindow(drafter, prediction, x, k, y, past, noise, source, sums, rows)
    drafted = length.long() - 1
    # Response and reuse do without the drafter, the control variate does not.
    settled = window.settled
    corrected = source == CONTROL_VARIATE if corrects or compare else None
    asked, discarded = settled, None
    if corrected is not None:
        asked = torch.where(corrected | compare, 0, settled)
        # Of what is asked about, the transitions that the teacher has seen at discarded states.
        discarded = torch.where(corrected | compare, past.known - 1, 0).minimum(drafted)
    # A plan has one sigma a transition, and nothing is asked at discarded states.
    simple = prediction.table.mixture is None and corrected is None
    whole = drafter if simple and drafts_windows(drafter) else None
    if whole is not None and whole.drafts(P + 1, sweeps) and rows.any(asked, drafted, 0, P):
        states, means = whole.draft(window.plan(drafted))
        at = rows.of(None, drafted, 0, P)
        made = (at.take(means), "drafter", at.take(window.at), at, samples, None, drafted)
        rows.require_finite(*made)
        calls = P if sweeps is None else min(sweeps, P)
        return Draft(states, means, window.at, window.sigma, None, calls)

    window.roll(0, P)
    calls = 0
    in_turn = [(j, j + 1) for j in range(P)]
    spans = in_turn if sweeps is None else [(0, P)] * min(sweeps, P)
    for turn, (first, end) in enumerate(spans):
        if not rows.any(asked, drafted, first, end):
            continue
        calls += 1
        again = turn + 1 < len(spans)
        # The drafter at the discarded states, once, for its error there.
        seen = discarded if sweeps is None or turn == 0 else None
        window.ask(first, end, samples, asked, drafted, seen, again)
        if corrected is not None:
            window.correct(corrected, first, end)
        window.roll(first, end, drafted=True)
    candidates = window.candidates(sums) if compare else None
    means = window.means[:, 1:].contiguous()
    return Draft(window.states, means, window.at, window.sigma, candidates, calls)
