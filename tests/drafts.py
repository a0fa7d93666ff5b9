"""Windows to draft: arguments of window_noise, first_guesses and roll_window_."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

from free.reference.draft import RESPONSE
from tests.arguments import arguments


class Roll(arguments("roll_window_")):
    def copy(self) -> Roll:
        return Roll(*(t.clone() if isinstance(t, Tensor) else t for t in self))

    def by(self, op: Callable[..., None]) -> tuple[Tensor, ...]:
        """States, means and guesses as the op leaves them; this window stays as it is."""
        window = self.copy()
        assert op(**window._asdict()) is None
        return window[:3]


#: What the drafter says: nothing, guesses, by how much guesses change, or predictions.
CHANGES = (None, "guess", "change", "prediction")


def random_roll(
    batch: int,
    drafts: int,
    shape: tuple[int, ...],
    changes: str | None = None,
    span: tuple[int, int] | None = None,
) -> Roll:
    """What is not read before it is written, and not written, is NaN."""
    first, end = (0, drafts) if span is None else span
    states, guesses = torch.randn(2, batch, drafts + 1, *shape).unbind(0)
    means = torch.randn(batch, drafts, *shape)
    means[:, first:], guesses[:, first + 1 :] = torch.nan, torch.nan
    # Predictions are of states that the drafter has seen, which are rolled over.
    states[:, (end if changes == "prediction" else first) + 1 :] = torch.nan
    settled = torch.randint(-1, drafts + 2, (batch,))
    return Roll(
        states,
        means,
        guesses,
        torch.randn(batch, drafts, *shape),
        torch.randn(batch, drafts, *shape),
        torch.rand(batch, drafts) - 0.5,
        None if changes is None else torch.randn(batch, drafts, *shape),
        None if changes is None else settled,
        changes or "guess",
        _coefficients(batch, drafts + 1),
        1.5,
        first,
        end,
    )


def _coefficients(batch: int, width: int) -> Tensor:
    """Some transitions take nothing of the one before."""
    low, span = torch.tensor([[1.0, -0.2, -0.3, 0.0, 0.5, -1.0], [0.1, 0.2, 0.6, 1.0, 0.5, 1.0]])
    drawn = low.view(6, 1, 1) + span.view(6, 1, 1) * torch.rand(6, batch, width)
    drawn[2] *= torch.rand(batch, width) < 0.5
    return drawn


Guesses = arguments("first_guesses")


def random_guesses(
    batch: int,
    drafts: int,
    shape: tuple[int, ...],
    steps: int = 9,
    rows: int = 11,
    source: int = RESPONSE,
    rolled: bool = True,
) -> Guesses:
    """Responses below 0 and above the largest, no evidence, a schedule's ends."""
    sample = torch.arange(batch)
    dot, square = torch.randn(2, batch).abs().unbind(0)
    return Guesses(
        torch.randn(batch, *shape),
        sample % (steps + 3) - 1,
        torch.randn(rows, *shape),
        torch.randn(rows, *shape),
        torch.randint(0, rows, (batch, drafts + 3)),
        torch.randint(1, drafts + 3, (batch,)),
        source,
        dot * torch.where(sample % 4 == 3, -1, 1),
        square * (sample % 5 < 4),
        torch.rand(8, steps),
        drafts,
        torch.randn(batch, drafts, *shape) if rolled else None,
        1.5 if rolled else None,
    )


def written(made: Iterable[Tensor], noise: Tensor | None) -> tuple[Tensor, ...]:
    """Of what first_guesses returns: without noise, entry 0 of states and guesses and no mean."""
    states, means, guesses, *rest = made
    return (states[:, :1], means[:, :0], guesses[:, :1], *rest) if noise is None else tuple(made)


Draws = arguments("window_noise", purpose=3, decision=2**32 - 1)


def random_draws(batch: int, width: int, size: int, rounds: bool = True) -> Draws:
    """Across the whole range of seeds and counters."""
    k = torch.randint(0, 2**32 - width, (batch,))
    k[-1] = 2**32 - width
    widths = torch.randint(0, width + 2, (batch,))
    widths[0], widths[-1] = 0, width + 1
    return Draws(
        torch.randint(-(2**63), 2**63 - 1, (batch,)),
        k,
        torch.randint(0, 2**32, (batch,)) if rounds else None,
        widths,
        torch.full((batch, size), torch.nan),
        width,
        2**32,
    )


def random_counters(rows: int, size: int, purpose: int = 1) -> dict[str, Any]:
    """Arguments of philox_normal and philox_uniform."""
    transition, again = torch.randint(0, 2**32, (2, rows)).unbind(0)
    seeds = torch.randint(-(2**63), 2**63 - 1, (rows,))
    counters = {"seeds": seeds, "transition": transition.clone(), "round": again.clone()}
    return counters | {"purpose": purpose, "size": size}
