"""Drafting: the states a round proposes, and the means they were drawn around."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from free.carry import map_tensors, put, take
from free.drafters.protocol import Anchored, Drafter, WindowDrafter, WindowPlan
from free.models.output import require_eps
from free.prediction import Prediction
from free.recycling import Recycled
from free.rows import Picked, Rows, WantedRows
from free.sources import CONTROL_VARIATE, DRAFTER, RESPONSE

__all__ = ["Draft", "draft_window"]


class Draft(NamedTuple):
    """A drafted window.

    Attributes
    ----------
    states : Tensor, shape [B, W, ...]
        The current state and the drafted ones.
    means : Tensor, shape [B, W - 1, ...]
        ``m_hat``: the means they were drawn around.
    recycled : Tensor, shape [B, W - 1], bool
        Transitions that the teacher had seen before.
    x_old, said : Tensor, shape [B, W - 1, ...]
        Where it had, and what it said there (as a guess); of others, the last it had seen.
    candidates : Tensor, shape [4, B, W - 1, ...], or None
        What each source (:mod:`free.sources`) guessed for those; None unless asked for.
    calls : int
        Of the drafter.
    """

    states: Tensor
    means: Tensor
    recycled: Tensor
    x_old: Tensor
    said: Tensor
    candidates: Tensor | None
    calls: int


def draft_window(
    drafter: Drafter | None,
    prediction: Prediction,
    x: Tensor,
    k: Tensor,
    y: Tensor,
    past: Recycled | None,
    noise: Tensor,
    length: Tensor,
    sweeps: int | None,
    source: Tensor,
    response: Tensor,
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
    drafter : Drafter or None
        None if nothing is to be drafted (``W = 1``). A :class:`WindowDrafter` is given the whole
        window, where it can.
    prediction : Prediction
        The schedule, in terms of what is guessed.
    x : Tensor, shape [B, ...], float32
        Current states.
    k : Tensor, shape [B], int64
        Their transitions.
    y : Tensor, shape [B], int64
        Labels.
    past : Recycled or None
        The teacher's last call; None before the first, when nothing can be drafted.
    noise : Tensor, shape [B, W - 1, ...], float32
        The drafts' noises z.
    length : Tensor, shape [B], int32
        Rows wanted of each sample, ``1 .. W``; ``length - 1`` transitions are drafted. Results at
        and beyond are undefined.
    sweeps : int or None
        Drafter calls, each for the whole window; None for one after the other.
    source : Tensor, shape [B], int64
        Which source drafts recycled transitions (:mod:`free.sources`).
    response : Tensor, shape [B]
        By how much the teacher's prediction follows its state.
    compare : bool
        Whether to return what every source would have guessed.
    corrects : bool
        Whether ``source`` may be the control variate, which asks the drafter at discarded states
        too.
    samples : Tensor, shape [B], int64, optional
        What errors call the samples; default ``0 .. B - 1``.
    rows : Rows, optional
        Which rows the drafter is asked about; default :class:`free.rows.WantedRows`.

    Returns
    -------
    Draft

    Raises
    ------
    FloatingPointError
        If the drafter's output is not finite.
    TypeError, ValueError
        If the drafter's output or carry is not what the protocol says.
    """
    P = noise.shape[1]
    if P == 0 or drafter is None or past is None:
        nothing = torch.zeros(len(x), 0, dtype=torch.bool, device=x.device)
        return Draft(x[:, None], noise, nothing, noise, noise, None, 0)
    step = torch.arange(P, device=x.device)
    recycled = step < past.known[:, None] - 1
    from_source = recycled & (source != DRAFTER)[:, None]
    samples = torch.arange(len(x), device=x.device) if samples is None else samples
    rows = WantedRows() if rows is None else rows
    window = _Window(drafter, prediction, x, k, y, past, noise, rows)
    x_old, said = past.rows.x[past.row[:, 1 : P + 1]], window.guess[:, 1:].clone()
    corrected = (source == CONTROL_VARIATE)[:, None]
    follows = response[:, None].clamp(min=0.0).minimum(prediction.largest_response(window.k))
    window.slope = torch.where(from_source & (source == RESPONSE)[:, None], follows, 0.0)
    settled = said - _like(window.slope, said) * x_old  # less the control variate's correction
    window.intercept = settled.clone()
    # Response and reuse do without the drafter.
    drafted = step < length[:, None] - 1
    asked = drafted & (~from_source | corrected | compare)
    # A plan has one sigma a transition, and nothing is asked at discarded states.
    simple = prediction.table.mixture is None and not (compare or corrects)
    whole = drafter if simple and isinstance(drafter, WindowDrafter) else None
    if whole is not None and whole.drafts(P + 1, sweeps) and rows.any(asked):
        states, means = whole.draft(window.plan(from_source, asked))
        at = rows.of(drafted, 0, P)
        made = (at.take(means), "drafter", at.take(window.k), samples[at.b], at.take(drafted))
        rows.require_finite(*made)
        calls = P if sweeps is None else min(sweeps, P)
        return Draft(states, means, recycled, x_old, said, None, calls)

    window.start()
    window.roll(0, P)
    discarded = recycled & (corrected | compare)
    change, change_old = torch.zeros_like(said), torch.zeros_like(said)
    calls = 0
    in_turn = [(j, j + 1) for j in range(P)]
    spans = in_turn if sweeps is None else [(0, P)] * min(sweeps, P)
    for turn, (first, end) in enumerate(spans):
        here = (step >= first) & (step < end)
        wanted = here & asked
        if not rows.any(wanted):
            continue
        calls += 1
        new = rows.of(wanted, first, end)
        # The drafter at the discarded states, once, for its error there.
        measures = (compare or corrects) and (sweeps is None or turn == 0)
        old = rows.of(wanted & discarded, first, end) if measures else None
        last = turn + 1 == len(spans)
        at_new, at_old = window.ask(new, old, (wanted, wanted & discarded), samples, not last)
        change = new.put(change, at_new)
        if old is not None:
            change_old = old.put(change_old, at_old)
        window.write(here & corrected & from_source, settled + change - change_old)
        window.write(here & ~from_source, window.accumulated(change, from_source, first, end))
        window.roll(first, end)
    candidates = None
    if compare:
        followed = said + _like(follows, said) * (window.states[:, :P] - x_old)
        by_drafter = change + (window.guess[:, :-1] if window.anchored else 0.0)
        candidates = torch.stack([followed, said + change - change_old, said, by_drafter])
    means = window.mean[:, 1:].contiguous()
    return Draft(window.states, means, recycled, x_old, said, candidates, calls)


class _R(NamedTuple):
    states: Any
    means: Any


def roll_window(x: Any, guess: Any, noise: Any, a: Any, b: Any, sigma: Any) -> Any:
    states, means = [x], []
    for j in range(guess.shape[1]):
        a_j, b_j, sigma_j = (c[:, j].view(-1, *[1] * (x.dim() - 1)) for c in (a, b, sigma))
        means.append(a_j * states[j] + b_j * guess[:, j])
        states.append(means[j] + sigma_j * noise[:, j])
    return _R(torch.stack(states, 1), torch.stack(means, 1) if means else torch.empty_like(guess))


class _Window:
    """A window while it is drafted.

    Entry ``i`` of ``guess`` and ``mean`` is transition ``k - 1 + i``: the one just made, then
    those of the window. A guess is affine in its own state, ``intercept + slope x``. Row
    ``b P + i`` of the carry goes with transition ``k + i``; the last row is for what is not kept.
    """

    slope: Tensor  # [B, P]
    intercept: Tensor  # [B, P, ...]
    carry: Any
    anchored: bool

    def __init__(
        self,
        drafter: Drafter,
        prediction: Prediction,
        x: Tensor,
        k: Tensor,
        y: Tensor,
        past: Recycled,
        noise: Tensor,
        rows: Rows,
    ) -> None:
        P = noise.shape[1]
        steps = torch.arange(P, device=x.device)
        self.drafter, self.prediction, self.past = drafter, prediction, past
        self.y, self.noise, self.rows = y, noise, rows
        self.k = (k[:, None] + steps).clamp(max=len(prediction.sigma) - 1)
        self.a, self.b, self.sigma = prediction.at(self.k)
        self.guess = past.guess[past.row[:, : P + 1]]
        self.mean, self.states = torch.empty_like(self.guess), torch.empty_like(self.guess)
        made = past.row[:, 0]
        self.mean[:, 0] = prediction.mean(past.rows.k[made], past.rows.x[made], past.guess[made])
        self.states[:, 0] = x

    def start(self) -> None:
        """Take the drafter's carry from the teacher's last call."""
        rows = self.past.row[:, : self.noise.shape[1]].flatten()
        self.carry = self.drafter.carry_from(self.past.rows, torch.cat([rows, rows[:1]]))
        self.anchored = isinstance(self.carry, Anchored)
        if self.anchored:
            self.carry = self.carry.feature  # image and mean are this window's own
        if self.anchored and self.prediction.signal is None:
            raise ValueError(
                "schedule must have signal and noise > 0 for a drafter with an Anchored carry, "
                "got one without x0"
            )

    def plan(self, settled: Tensor, asked: Tensor) -> WindowPlan:
        """The window as it is before the drafter is asked."""
        return WindowPlan(
            self.states[:, 0],
            self.k,
            self.y,
            self.noise,
            self.a,
            self.b,
            self.sigma,
            self.slope,
            self.intercept,
            settled,
            asked,
            self.guess[:, 0],
            self.mean[:, 0],
            self.past.rows,
            self.past.row[:, : self.noise.shape[1]],
            self.past.known,
        )

    def roll(self, first: int, end: int) -> None:
        """States, means and guesses of transitions ``first .. end - 1`` from their intercepts."""
        if self.prediction.table.mixture is None:
            self._roll(first, end, self.sigma[:, first:end].contiguous())
            return
        # The target has the sigma of the state where its transition starts; so must the draft.
        for j in range(first, end):
            sigma = self.prediction.table.sigma_at(self.k[:, j], self.states[:, j])
            self._roll(j, j + 1, sigma[:, None])

    def _roll(self, first: int, end: int, sigma: Tensor) -> None:
        span, onward = slice(first, end), slice(first + 1, end + 1)
        a, b = self.a[:, span].contiguous(), self.b[:, span].contiguous()
        slope, intercept = self.slope[:, span], self.intercept[:, span].contiguous()
        noise = self.noise[:, span].contiguous()
        x = self.states[:, first].contiguous()
        rolled = roll_window(x, intercept, noise, a + b * slope, b, sigma)
        self.states[:, onward], self.mean[:, onward] = rolled.states[:, 1:], rolled.means
        self.guess[:, onward] = intercept + _like(slope, intercept) * rolled.states[:, :-1]

    def ask(
        self,
        new: Picked,
        old: Picked | None,
        wanted: tuple[Tensor, Tensor],
        samples: Tensor,
        again: bool,
    ) -> tuple[Tensor, Tensor]:
        """The drafter's predictions, less their anchors, at new states and at discarded ones.

        ``wanted`` are those of the new and of the discarded, [B, P]. The carry moves on with the
        new, if the drafter is to be asked ``again``.
        """
        P, asked = self.noise.shape[1], [new] if old is None else [new, old]
        b, at = (
            _joined([rows.b for rows in asked]),
            _joined([rows.b * P + rows.i for rows in asked]),
        )
        k, guess = (
            _joined([rows.take(windows) for rows in asked]) for windows in (self.k, self.guess)
        )
        used = _joined([rows.take(mask) for rows, mask in zip(asked, wanted, strict=False)])
        x, mean = new.take(self.states), new.take(self.mean)
        if old is not None:
            x_old = self.past.rows.x[self.past.row[old.b, old.i + 1]]
            before = self._mean_before_discarded(x_old, old.b, old.i)
            x, mean = torch.cat([x, x_old]), torch.cat([mean, before])
        carry = take(self.carry, at)
        if self.anchored:
            carry = Anchored(carry, guess, mean)
        eps_hat, after = self.drafter.predict(x, k, self.y[b], carry)
        require_eps(eps_hat, x, "drafter")
        self.rows.require_finite(eps_hat, "drafter", k, samples[b], used)
        predicted = self.prediction.from_eps(k, x, eps_hat)
        if self.anchored:
            predicted, after = predicted - guess, after.feature
        count = len(new.b)
        if again:
            # The next transition's carry is what the drafter says, unless the teacher has said it.
            i = new.i + 1
            onward = (i < P) & (i >= self.past.known[new.b])
            to = torch.where(onward, new.b * P + i, len(self.y) * P)
            self.carry = put(self.carry, to, map_tensors(lambda part: part[:count], after))
        return predicted[:count], predicted[count:]

    def _mean_before_discarded(self, x_old: Tensor, b: Tensor, i: Tensor) -> Tensor:
        """Mean of the transition that led to a discarded state: the noise was the same, except
        at the window's start, where the rejected draft is measured by the repaired one's mean.
        """
        before = (i - 1).clamp(min=0)
        sigma = _like(self.prediction.sigma[self.k[b, before]], x_old)
        rolled = torch.addcmul(x_old, sigma, self.noise[b, before], value=-1)
        return torch.where(_like(i > 0, x_old), rolled, self.mean[b, 0])

    def accumulated(self, change: Tensor, settled: Tensor, first: int, end: int) -> Tensor:
        """Guesses [B, P, ...] of transitions ``first .. end - 1`` by the drafter: the last
        settled guess before, and the changes since. ``settled [B, P]`` is a prefix.
        """
        if not self.anchored:
            return change
        last = settled.sum(1).clamp(first, end)
        base = self.guess[torch.arange(len(last), device=last.device), last]
        steps = torch.where(_like(settled, change), 0.0, change)[:, first:end]
        guesses = torch.zeros_like(change)
        guesses[:, first:end] = base[:, None] + steps.cumsum(1)
        return guesses

    def write(self, where: Tensor, intercept: Tensor) -> None:
        """Replace intercepts ``where [B, P]``."""
        self.intercept = torch.where(_like(where, intercept), intercept, self.intercept)


def _joined(parts: list[Tensor]) -> Tensor:
    """One after the other."""
    return parts[0] if len(parts) == 1 else torch.cat(parts)


def _like(column: Tensor, states: Tensor) -> Tensor:
    """``column``, [B] or [B, P], with axes to broadcast over ``states``."""
    return column.view(*column.shape, *[1] * (states.dim() - column.dim()))
