"""Drafting: the states a round proposes, and the means they were drawn around."""

from __future__ import annotations

import torch
from torch import Tensor

from free.drafters.protocol import Drafter, WindowDrafter, drafts_windows
from free.rounds.drafted_window import DraftedWindow
from free.rounds.drafter_call import DrafterCall
from free.rounds.row_selection import RowSelector, WantedRows
from free.rounds.state import Draft, Samples
from free.schedule.table import Table


def draft_window(
    drafter: Drafter,
    samples: Samples,
    noise: Tensor,
    drafted: Tensor,
    *,
    table: Table,
    sweeps: int | None,
    source: int,
    rows: RowSelector | None = None,
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

    A :class:`WindowDrafter` is given the whole window, where it can; a :class:`ChangeDrafter` is
    asked for changes, which add up along the window, and needs a schedule with x0 (ValueError).

    ``samples`` that draft anything have been seen by the teacher. ``noise [B, W - 1, ...]``,
    float32, is the drafts' z. Of each sample ``drafted [B]``, int64, transitions are drafted,
    ``0 .. W - 1``; results beyond are undefined. ``source`` drafts recycled transitions
    (:mod:`free.rounds.draft_source`). ``rows`` the drafter is asked about are by default
    :class:`free.rounds.row_selection.WantedRows`.

    Raises FloatingPointError if the drafter's output is not finite, TypeError or ValueError if its
    output or carry is not what the protocol says.
    """
    P, rows = noise.shape[1], rows or WantedRows()
    call = DrafterCall(drafter, table)
    whole: WindowDrafter | None = None
    # Whole, it is told of the noise in units of sigma.
    if table.affine and table.noisy and drafts_windows(drafter) and drafter.drafts(P + 1, sweeps):
        whole = drafter
    window = DraftedWindow(
        samples, noise, table, source=source, says=call.says, rolled=whole is None
    )
    if whole is not None and rows.select(window.settled, drafted, 0, P).size:
        states, means = whole.draft(window.plan(drafted))
        selected = rows.select(None, drafted, 0, P)
        rows.require_finite(
            selected.take(means),
            selected.take(window.k),
            selected,
            network="drafter",
            samples=samples.number,
            high=drafted,
        )
        calls = P if sweeps is None else min(sweeps, P)
        return Draft(states, means, window.k, window.sigma, calls)

    if whole is not None:  # who is not asked about anything
        window.roll(0, P, drafted=False)
    in_turn = [(j, j + 1) for j in range(P)]
    spans = in_turn if sweeps is None else [(0, P)] * min(sweeps, P)
    for turn, (first, end) in enumerate(spans):
        asked = rows.select(window.settled, drafted, first, end)
        if not asked.size:  # response and reuse do without the drafter
            continue
        answer, k = call.ask(window, asked, again=turn + 1 < len(spans))
        rows.require_finite(
            answer,
            k,
            asked,
            network="drafter",
            samples=samples.number,
            low=window.settled,
            high=drafted,
        )
        window.roll(first, end, drafted=True)
    return Draft(window.states, window.means, window.k, window.sigma, call.count)


def blind_window(samples: Samples, W: int, table: Table) -> Draft:
    """Draft ``W`` rows for samples of which the teacher has said nothing, as if x0 were 0.

    Such drafts are hardly worth a row where a law must be kept. Within a tolerance they are not
    kept either, but what the teacher says of them starts the next window.
    """
    step = torch.arange(W, device=samples.k.device)
    k = (samples.k[:, None] + step).clamp(max=len(table.sigma) - 1)
    a = table.columns[0, k]
    scale = torch.cat([torch.ones_like(a[:, :1]), a[:, :-1].cumprod(1)], dim=1)
    x = samples.x[:, None]
    states = scale.view(*scale.shape, *[1] * (x.dim() - 2)) * x
    return Draft(states, states[:, 1:].contiguous(), k, table.sigma[k], 0)
