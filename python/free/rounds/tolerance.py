"""Keeping drafts of a law without noise within a tolerance, and how far that leads astray.

Without noise a transition has one successor, and a draft is right or wrong. But what the teacher
said at a drafted state tells what it would say nearby. So the states are rolled again from its
answers: exactly from the first, as the sample's state is the window's first, and then each a little
off the one that the teacher saw. A draft stands while that offset is within the tolerance; then the
teacher's answer there counts as one at the rolled state. The sample goes on from the last state
that was rolled from such answers, so nothing of the drafts themselves stays in it.

An answer is carried over an offset by two slopes: the response, one number a sample, and, along the
direction in which the state has moved since the teacher was last asked about its transition, what
its answers have changed by (one step of Broyden's method, or of Anderson's mixing at depth one).
There is no law to keep here, so all rows that the teacher has seen twice inform both.

How it ends is not known exactly: docs/deterministic.md says what was measured.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from free.arguments import as_number, shortened
from free.reference.draft import LARGEST_RESPONSE
from free.rounds.draft_source import updated_response
from free.rounds.state import Response, Samples, Window
from free.rounds.target import Answer
from free.schedule.schedule import Schedule
from free.schedule.table import Table

#: The verifier's name, beside those of :data:`free.ops.VERIFIERS`.
TOLERANCE = "tolerance"

_EXPECTED = "tolerance must be a finite number >= 0"

#: Weight that a round's evidence of how well answers are carried over keeps in the next one.
_MEMORY = 0.8
#: Changes of an answer per change of its state, where nothing has been seen twice yet.
_UNKNOWN = 1.0


def check_tolerance(tolerance: Any, schedule: Schedule, verifier: str) -> None:
    """Raise a ValueError unless ``tolerance`` is one for this verifier, and None with others.

    Also if the schedule has noise, which a tolerance has no place for.
    """
    if verifier != TOLERANCE:
        if tolerance is not None:
            raise ValueError(
                f"tolerance must be None unless verifier is {TOLERANCE!r}, "
                f"got {shortened(tolerance)} with verifier {verifier!r}"
            )
        return
    if tolerance is None:
        raise ValueError(
            f"tolerance must be given with verifier {TOLERANCE!r}, such as tolerance=0.01, got None"
        )
    as_number(tolerance, _EXPECTED, 0.0)
    if (noisy := schedule.sigma > 0).any():
        raise ValueError(
            f"schedule must have sigma = 0 everywhere with verifier {TOLERANCE!r}, got "
            f"{schedule.sigma[noisy][0]:g} at step {int(noisy.argmax())}: a law with noise is "
            "sampled exactly by verifier 'reflection'; stochasticity=0 makes deterministic ones of "
            "those that have it"
        )


class Kept(NamedTuple):
    """What became of a window of W rows.

    Attributes
    ----------
    x : Tensor, shape [B, ...], float32
        The states after the last transition made.
    advance, accepted : Tensor, shape [B], int32
        As :class:`free.ops.Verified` has them.
    states, means : Tensor, shape [B, W, ...], float32
        States as they follow from the answers, and where each leads.
    guess : Tensor, shape [R, ...], float32
        What the next window's drafts start from: with the response, it amounts to the answers at
        these states, as the answers at those that the teacher saw do to its own.
    response : Response
    offsets : Tensor, shape [B, W - 1], float32
        Of the drafts, in tolerances; NaN behind the first that does not stand.
    """

    x: Tensor
    advance: Tensor
    accepted: Tensor
    states: Tensor
    means: Tensor
    guess: Tensor
    response: Response
    offsets: Tensor


class Leeway:
    """A tolerance at work: how far each of a run's B ``samples`` may be from its serial run.

    ``tolerance`` is the offset of a state, as a root mean square over its elements, in units of the
    state's size ``sqrt(signal^2 + noise^2)``. ``estimate [B]``, float64, is how far the states are
    from those of a run of one row a round, by root mean square, as the accepted offsets tell; of
    finished samples too.
    """

    def __init__(self, tolerance: float, table: Table, samples: int, device: torch.device) -> None:
        self.tolerance = as_number(tolerance, _EXPECTED, 0.0)
        self._table = table
        size = (table.signal.square() + table.noise.square()).sqrt()
        self._size = torch.where(size > 0, size, 1.0)
        self.estimate = torch.zeros(samples, dtype=torch.float64, device=device)
        # Squared changes of answers that the response does not tell, and of their states.
        self._evidence = torch.zeros(2, samples, dtype=torch.float64, device=device)

    @property
    def places(self) -> tuple[Tensor, Tensor]:
        """All that a round writes to."""
        return self.estimate, self._evidence

    def clear(self) -> None:
        """Nothing has been drawn yet."""
        for place in self.places:
            place.zero_()

    def verify(self, samples: Samples, window: Window, answer: Answer) -> Kept:
        """Keep a prefix of each window; ``answer`` is of its rows."""
        draft, rows = window.draft, window.rows
        batch, W = draft.k.shape
        shape = draft.states.shape
        seen, means, guess = (
            part.flatten(2)
            for part in (
                draft.states,
                rows.windows(answer.means, batch, W),
                rows.windows(answer.guess, batch, W),
            )
        )
        response = samples.response
        if samples.past.rows.k.shape[0]:
            response = updated_response(
                samples, draft, guess.view(shape), length=window.length, advance=window.length
            )
        columns = self._table.columns[:, draft.k]
        slope = response.slope().clamp(min=0.0)[:, None].minimum(columns[LARGEST_RESPONSE])
        moved, turned = self._changes(samples, window, seen, guess, slope)
        rolled = _roll_again(
            seen,
            means,
            guess,
            slope=slope,
            moved=moved,
            turned=turned,
            columns=columns,
            clip=self._table.clip,
        )
        rms = rolled.offset.square().mean(2).sqrt()
        offset = rms / self._size[draft.k]
        accepted = _standing(offset, window.length, self.tolerance)
        each = torch.arange(batch, device=offset.device)
        x = rolled.means[each, accepted].view(shape[0], *shape[2:])
        # The last transition's answer where it was made from: a history goes on from there.
        guess = guess + rolled.turn
        guess[each, accepted] += (slope[:, :, None] * rolled.offset)[each, accepted]
        self._count(
            samples.number, rms, moved=moved, turned=turned, b=columns[1], accepted=accepted
        )
        step = torch.arange(W - 1, device=offset.device)
        examined = (step <= accepted[:, None]) & (step < window.length[:, None] - 1)
        states = torch.cat([seen[:, :1], rolled.means[:, :-1]], dim=1)
        return Kept(
            x,
            (accepted + 1).int(),
            accepted.int(),
            states.view(shape),
            rolled.means.view(shape),
            rows.take(guess.view(shape)),
            response,
            torch.where(examined, offset[:, 1:] / max(self.tolerance, 1e-30), torch.nan),
        )

    def _changes(
        self, samples: Samples, window: Window, seen: Tensor, guess: Tensor, slope: Tensor
    ) -> tuple[Tensor, Tensor]:
        """How states have moved since the teacher was last asked about their transitions, and what
        its answers have changed by beside the response; [B, W, D] each, 0 where it was not.
        """
        past, W = samples.past, seen.shape[1]
        if not past.rows.k.shape[0]:
            return torch.zeros_like(seen), torch.zeros_like(seen)
        place = past.row[:, 1 : W + 1]  # entry 0 is the transition just made
        step = torch.arange(place.shape[1], device=place.device)
        twice = step < torch.minimum(past.known - 1, window.length)[:, None]
        found = [
            torch.where(twice[..., None], now[:, : len(step)] - before.flatten(1)[place], 0.0)
            for now, before in ((seen, past.rows.x), (guess, past.guess))
        ]
        moved, changed = (torch.nn.functional.pad(f, (0, 0, 0, W - len(step))) for f in found)
        return moved, changed - slope[..., None] * moved

    def _count(
        self,
        number: Tensor,
        offset: Tensor,
        *,
        moved: Tensor,
        turned: Tensor,
        b: Tensor,
        accepted: Tensor,
    ) -> None:
        """Add what the accepted offsets may come to.

        An answer that is carried over an offset is wrong by some part of it: by as much as the last
        answers were beside the response, at the same transition or on the whole, whichever is more.
        What later steps make of the error is left out.
        """
        turns, moves = (part.double().square().sum(2) for part in (turned, moved))
        evidence = torch.stack([turns.sum(1), moves.sum(1)]) + _MEMORY * self._evidence[:, number]
        self._evidence[:, number] = evidence
        overall = torch.where(evidence[1] > 0, _ratio(evidence[0], evidence[1]), _UNKNOWN)
        share = torch.maximum(_ratio(turns, moves), overall[:, None]).sqrt()
        stands = torch.arange(offset.shape[1], device=offset.device) <= accepted[:, None]
        error = torch.where(stands, b.abs() * offset * share, 0.0)
        self.estimate[number] += error.sum(1)


def _standing(offset: Tensor, length: Tensor, tolerance: float) -> Tensor:
    """How many drafts of each window stand, [B], by the ``offset [B, W]`` of its rows."""
    real = torch.arange(offset.shape[1], device=offset.device) < length[:, None]
    return ((offset <= tolerance) & real)[:, 1:].cumprod(1).sum(1)


def _ratio(part: Tensor, whole: Tensor) -> Tensor:
    """``part / whole``, 0 where there is nothing."""
    return torch.where(whole > 0, part / torch.where(whole > 0, whole, 1.0), 0.0)


class _Rolled(NamedTuple):
    """A window rolled again, [B, W, D] each: how far states are from those seen, where they lead,
    and what the direction of the last move adds to the answers.
    """

    offset: Tensor
    means: Tensor
    turn: Tensor


def _roll_again(
    seen: Tensor,
    means: Tensor,
    guess: Tensor,
    *,
    slope: Tensor,
    moved: Tensor,
    turned: Tensor,
    columns: Tensor,
    clip: float | None,
) -> _Rolled:
    """Roll windows of states ``seen`` from answers ``guess``, of which ``means`` are made.

    In terms of offsets, so that a state that was seen is left as it is, to the last bit.
    """
    a, b, c = columns[:3, :, :, None]
    square = moved.square().sum(2)
    along = _ratio(torch.ones_like(square), square)
    offset, before = torch.zeros_like(seen[:, 0]), torch.zeros_like(seen[:, 0])
    offsets, rolled, turns = [], [], []
    for j in range(seen.shape[1]):
        share = (torch.linalg.vecdot(offset, moved[:, j]) * along[:, j]).clamp(-1.0, 1.0)
        turn = share[:, None] * turned[:, j]
        follows = torch.addcmul(turn, slope[:, j, None], offset)
        if clip is not None:
            follows = (guess[:, j] + follows).clamp(-clip, clip) - guess[:, j]
        leads = torch.addcmul(means[:, j], a[:, j], offset).addcmul_(b[:, j], follows)
        leads = leads.addcmul_(c[:, j], before)
        offsets.append(offset)
        rolled.append(leads)
        turns.append(turn)
        if j + 1 < seen.shape[1]:
            offset, before = leads - seen[:, j + 1], follows
    return _Rolled(*(torch.stack(parts, dim=1) for parts in (offsets, rolled, turns)))
