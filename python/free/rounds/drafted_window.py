"""A window while it is drafted: rolled from guesses, asked about, rolled again."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from free.drafters.protocol import Drafter, WindowPlan, says_changes
from free.models.output import require_eps
from free.ops import first_guesses, roll_window_
from free.rounds.row_selection import Picked, Rows
from free.rounds.state import Evidence, Recycled
from free.rounds.tensor_tree import map_tensors, put, take
from free.schedule.table import Prediction

__all__ = ["DraftedWindow"]


class DraftedWindow:
    """A window while it is drafted.

    Entry ``i`` of ``states``, ``means`` and ``guesses`` is the state before transition ``k + i``,
    and mean and guess of the transition that led there. Row ``b P + i`` of the carry goes with
    transition ``k + i``; the last row is for what is not kept.
    """

    carry: Any = None
    place: Tensor  # [B, P], rows of the carry
    onward: Tensor  # [B, P], which row goes on with what the drafter says at this one
    change: Tensor | None = None  # [B, P, ...], what the drafter says
    change_old: Tensor | None = None  # the same at discarded states

    def __init__(
        self,
        drafter: Drafter,
        prediction: Prediction,
        x: Tensor,
        k: Tensor,
        y: Tensor,
        past: Recycled,
        noise: Tensor,
        source: Tensor,
        sums: Evidence,
        rows: Rows,
    ) -> None:
        self.drafter, self.prediction, self.past = drafter, prediction, past
        self.y, self.noise, self.rows = y, noise, rows
        self.changing = drafter if says_changes(drafter) else None
        if self.changing is not None and prediction.signal is None:
            raise ValueError(
                "schedule must have signal and noise > 0 for a drafter that says how x0 changes, "
                "got one without x0"
            )
        seen = (past.rows.x, past.guess, past.row, past.known, source, sums.dot, sums.square)
        first = first_guesses(x, k, *seen, prediction.columns, noise.shape[1])
        self.states, self.means, self.guesses = first.states, first.means, first.guesses
        self.intercept, self.slope, self.settled = first.intercept, first.slope, first.settled
        self.at = first.at
        self.a, self.b, self.sigma = first.coefficients.unbind()

    def plan(self, drafted: Tensor) -> WindowPlan:
        """The window as it is before the drafter is asked."""
        P = self.noise.shape[1]
        step = torch.arange(P, device=self.at.device)
        settled = step < self.settled[:, None]
        return WindowPlan(
            self.states[:, 0],
            self.at[:, :P],
            self.y,
            self.noise,
            self.a[:, :P],
            self.b[:, :P],
            self.sigma[:, :P],
            self.slope,
            self.intercept,
            settled,
            (step < drafted[:, None]) & ~settled,
            self.guesses[:, 0],
            self.means[:, 0],
            self.past.rows,
            self.past.row[:, :P],
            self.past.known,
        )

    def roll(self, first: int, end: int, drafted: bool = False) -> None:
        """States, means and guesses of transitions ``first .. end - 1``, from what the drafter says
        where it is ``drafted``.
        """
        if self.prediction.table.mixture is None:
            self._roll(first, end, drafted)
            return
        # The target has the sigma of the state where its transition starts; so must the draft.
        for j in range(first, end):
            self.sigma[:, j] = self.prediction.table.sigma_at(self.at[:, j], self.states[:, j])
            self._roll(j, j + 1, drafted)

    def _roll(self, first: int, end: int, drafted: bool) -> None:
        roll_window_(
            self.states,
            self.means,
            self.guesses,
            self.noise,
            self.intercept,
            self.slope,
            self.change if drafted else None,
            self.settled if drafted else None,
            self.changing is not None,
            self.a,
            self.b,
            self.sigma,
            first,
            end,
        )

    def ask(
        self,
        first: int,
        end: int,
        samples: Tensor,
        asked: Tensor,
        drafted: Tensor,
        discarded: Tensor | None,
        again: bool,
    ) -> None:
        """Ask the drafter at new states of transitions ``first .. end - 1``, and at discarded ones.

        The new are wanted from ``asked [B]`` to ``drafted [B]``, the discarded, if any, up to
        ``discarded [B]``. The carry moves on with the new, if the drafter is to be asked ``again``.
        """
        P = self.noise.shape[1]
        new = self.rows.of(asked, drafted, first, end)
        old = None if discarded is None else self.rows.of(None, discarded, first, end)
        each = [new] if old is None else [new, old]
        k, y = (
            _joined([rows.take(self.at[:, :P]) for rows in each]),
            _joined([rows.each(self.y) for rows in each]),
        )
        x, mean = new.take(self.states[:, :P]), new.take(self.means[:, :P])
        count = len(x)
        if old is not None:
            b, i = old.b, old.i
            x_old = self.past.rows.x[self.past.row[b, i + 1]]
            x, mean = (
                torch.cat([x, x_old]),
                torch.cat([mean, self._mean_before_discarded(x_old, b, i)]),
            )
        if again and self.carry is None:
            self._keep_carry()
        if self.carry is None:
            nearest = _joined([rows.take(self.past.row[:, :P]) for rows in each])
            carry = self._carry_from(nearest)
        else:
            carry = take(self.carry, _joined([rows.take(self.place) for rows in each]))
        if self.changing is not None:
            said, after = _pair(self.changing.change(x, mean, k, y, carry), "a change")
            require_eps(said, x, "drafter", "change")
        else:
            eps, after = _pair(self.drafter.predict(x, k, y, carry), "an eps")
            require_eps(eps, x, "drafter")
            said = self.prediction.from_eps(k, x, eps)
        at_new, at_old = said[:count], said[count:]
        self.rows.require_finite(at_new, "drafter", k[:count], new, samples, asked, drafted)
        self.change = self._windows(new, at_new, self.change)
        if old is not None:
            self.rows.require_finite(at_old, "drafter", k[count:], old, samples, None, discarded)
            self.change_old = self._windows(old, at_old, self.change_old)
        if again:
            of_new = map_tensors(lambda part: part[:count], after)
            self.carry = put(self.carry, new.take(self.onward), of_new)

    def _keep_carry(self) -> None:
        """The carry of every transition, for more than one call."""
        B, P = self.noise.shape[:2]
        every = self.past.row[:, :P].flatten()
        self.carry = self._carry_from(torch.cat([every, every[:1]]))
        self.place = torch.arange(B * P, device=every.device).view(B, P)
        # The next transition's carry is what the drafter says, unless the teacher has said it.
        i = torch.arange(1, P + 1, device=every.device)
        own = (i < P) & (i >= self.past.known[:, None])
        self.onward = torch.where(own, self.place + 1, B * P)

    def _carry_from(self, rows: Tensor) -> Any:
        """The drafter's carry from these rows of the teacher's last call."""
        if self.changing is not None:
            carry = self.changing.carry_of_change(self.past.rows, rows)
        else:
            carry = self.drafter.carry_from(self.past.rows, rows)

        def checked(part: Tensor) -> Tensor:
            # One of another length would broadcast into the rows, or fail far from here.
            if part.shape[:1] != rows.shape:
                raise ValueError(f"carry must have {len(rows)} rows, got shape {list(part.shape)}")
            return part

        return map_tensors(checked, carry)  # or an error that says what it may be

    def _windows(self, rows: Picked, said: Tensor, before: Tensor | None) -> Tensor:
        """What was said at these rows, in windows [B, P, ...], elsewhere as it was ``before``."""
        said = said.float()
        if before is None:
            return rows.windows(said, *self.noise.shape[:2]).contiguous()
        return rows.put(said, before).contiguous()

    def _mean_before_discarded(self, x_old: Tensor, b: Tensor, i: Tensor) -> Tensor:
        """Mean of the transition that led to a discarded state: the noise was the same, except
        at the window's start, where the rejected draft is measured by the repaired one's mean.
        """
        before = (i - 1).clamp(min=0)
        sigma = _like(self.prediction.sigma[self.at[b, before]], x_old)
        rolled = torch.addcmul(x_old, sigma, self.noise[b, before], value=-1)
        return torch.where(_like(i > 0, x_old), rolled, self.means[b, 0])

    def correct(self, corrected: Tensor, first: int, end: int) -> None:
        """The control variate: of samples ``corrected [B]``, what the teacher said of transitions
        ``first .. end - 1`` and how the drafter's answer differs between the two states.
        """
        assert self.change is not None
        step = torch.arange(self.noise.shape[1], device=self.at.device)
        here = (step >= first) & (step < end) & (step < self.settled[:, None])
        guess = self._said() + self.change
        if self.change_old is not None:
            guess = guess - self.change_old
        here = _like(here & corrected[:, None], guess)
        self.intercept = torch.where(here, guess, self.intercept)

    def candidates(self, sums: Evidence) -> Tensor:
        """What each source guesses of the window, [4, B, P, ...]."""
        P, said = self.noise.shape[1], self._said()
        none = torch.zeros_like(said)
        change = none if self.change is None else self.change
        change_old = none if self.change_old is None else self.change_old
        largest = self.prediction.columns[3, self.at[:, :P]]
        follows = sums.response()[:, None].clamp(min=0.0).minimum(largest)
        x_old = self.past.rows.x[self.past.row[:, 1 : P + 1]]
        followed = said + _like(follows, said) * (self.states[:, :P] - x_old)
        by_drafter = change if self.changing is None else change + self.guesses[:, :P]
        return torch.stack([followed, said + change - change_old, said, by_drafter])

    def _said(self) -> Tensor:
        """What the teacher said of the window's transitions in its last call, [B, P, ...]."""
        return self.past.guess[self.past.row[:, 1 : self.noise.shape[1] + 1]]


def _pair(said: Any, what: str) -> Any:
    """What a drafter returned, if it is a pair: a tensor of two rows would unpack as one."""
    if not isinstance(said, tuple | list) or len(said) != 2:
        got = f"{len(said)} values" if isinstance(said, tuple | list) else type(said).__name__
        raise TypeError(f"drafter must return {what} and a carry, got {got}")
    return said


def _joined(parts: list[Tensor]) -> Tensor:
    """One after the other."""
    return parts[0] if len(parts) == 1 else torch.cat(parts)


def _like(column: Tensor, states: Tensor) -> Tensor:
    """``column``, [B] or [B, P], with axes to broadcast over ``states``."""
    return column.view(*column.shape, *[1] * (states.dim() - column.dim()))
