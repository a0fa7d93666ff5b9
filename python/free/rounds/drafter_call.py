"""Asking a drafter about rows of a window, with the carry that it threads from row to row."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from free.drafters.protocol import Drafter, says_changes
from free.models.output import require_eps, require_unwritten
from free.ops import network_rows
from free.rounds.drafted_window import DraftedWindow
from free.rounds.row_selection import Selection
from free.rounds.state import Recycled
from free.rounds.tensor_tree import map_tensors, put, take
from free.schedule.table import Table


class DrafterCall:
    """The calls of one drafter for one window; ``count`` of them so far.

    ``says`` is what it says, as :func:`free.ops.roll_window_` takes it.
    """

    def __init__(self, drafter: Drafter, table: Table) -> None:
        self._drafter, self._table = drafter, table
        self._changes = drafter if says_changes(drafter) else None
        if self._changes is not None and not table.images:
            raise ValueError(
                "schedule must have signal and noise > 0 for a drafter that says how x0 changes, "
                "got one without x0"
            )
        self.count = 0
        if self._changes is not None:
            self.says = "change"
        else:
            # With a sigma of the state a window is rolled in turn, over states that were asked of.
            self.says = "guess" if table.mixture is not None else "prediction"
        # Row b P + i goes with transition k + i; the last row is for what is not kept.
        self._carry: Any = None
        self._place: Tensor  # [B, P], rows of the carry
        self._onward: Tensor  # [B, P], which row goes on with what the drafter says at this one

    def ask(self, window: DraftedWindow, rows: Selection, again: bool) -> tuple[Tensor, Tensor]:
        """Ask the drafter at these rows: changes of x0, or predictions, [R, ...], and transitions.

        ``window.said`` is updated. If it is to be asked ``again``, the carry moves on.
        """
        batch, P = window.noise.shape[:2]
        past = window.samples.past
        changes = self._changes
        x, _, y, k, mean = network_rows(
            window.states,
            window.k,
            window.samples.y,
            self._table.words,
            **rows.where,
            means=None if changes is None else window.means,
            mean_before=None if changes is None else window.mean_before,
        )
        if again and self._carry is None:
            self._keep_carry(past, batch, P)
        if self._carry is None:
            carry = self._carry_from(past, rows.take(past.row))
        else:
            carry = take(self._carry, rows.take(self._place))
        if changes is not None:
            answer, after = _pair(changes.change(x, mean, k, y, carry), "a change")
            require_eps(answer, x, "drafter", "change")
        else:
            answer, after = _pair(self._drafter.predict(x, k, y, carry), "an eps")
            require_eps(answer, x, "drafter")
            if self.says == "guess":
                answer = self._table.guess(k, x, answer)
        require_unwritten(x, "drafter")
        answer = answer.float()
        if window.said is None:
            window.said = rows.windows(answer, batch, P).contiguous()
        else:
            window.said = rows.put(answer, window.said).contiguous()
        if again:
            self._carry = put(self._carry, rows.take(self._onward), after)
        self.count += 1
        return answer, k

    def _keep_carry(self, past: Recycled, batch: int, P: int) -> None:
        """Make the carry of every transition, for more than one call."""
        every = past.row[:, :P].flatten()
        self._carry = self._carry_from(past, torch.cat([every, every[:1]]))
        self._place = torch.arange(batch * P, device=every.device).view(batch, P)
        # The next transition's carry is what the drafter says, unless the teacher has said it.
        i = torch.arange(1, P + 1, device=every.device)
        own = (i < P) & (i >= past.known[:, None])
        self._onward = torch.where(own, self._place + 1, batch * P)

    def _carry_from(self, past: Recycled, rows: Tensor) -> Any:
        """The drafter's carry from these rows of the teacher's last call."""
        if self._changes is not None:
            carry = self._changes.carry_of_change(past.rows, rows)
        else:
            carry = self._drafter.carry_from(past.rows, rows)

        def checked(part: Tensor) -> Tensor:
            # One of another length would broadcast into the rows, or fail far from here.
            if part.shape[:1] != rows.shape:
                raise ValueError(f"carry must have {len(rows)} rows, got shape {list(part.shape)}")
            return part

        return map_tensors(checked, carry)  # or an error that says what it may be


def _pair(answer: Any, what: str) -> Any:
    """What a drafter returned, if it is a pair: a tensor of two rows would unpack as one."""
    if not isinstance(answer, tuple | list) or len(answer) != 2:
        got = f"{len(answer)} values" if isinstance(answer, tuple | list) else type(answer).__name__
        raise TypeError(f"drafter must return {what} and a carry, got {got}")
    return answer
