"""Drafting a window: autoregression, sweeps, recycling, and whom the drafter is asked about.

That no mean sees its own noise is tried in ``tests/law/test_exactness.py``, in windows of runs.
"""

from typing import Any

import pytest
import torch
from torch import Tensor

import free.rounds.drafted_window
from free import FrozenDrafter, Schedule
from free.drafters import Drafter, DraftingBatch
from free.models.output import TeacherRows
from free.ops import roll_window_
from free.reference.draft import DRAFTER, RESPONSE, REUSE, SOURCES
from free.rounds.draft import draft_window
from free.rounds.row_selection import EveryRow, RowSelector
from free.rounds.state import Draft, Response, Samples
from free.schedule.table import Table
from tests.networks import AnchoredDrafter, CallableDrafter, MixtureTeacher
from tests.rows import recalled

TABLE = Table.of(Schedule.ddpm(20), "cpu")
FLOW = Table.of(Schedule([3, 2, 1, 0], [1.0] * 4, [-0.25] * 4, [0.5, 0.4, 0.3, 0.0]), "cpu")
TEACHER, POOR = MixtureTeacher(3), MixtureTeacher(3, shift=0.1)
K = torch.tensor([1, 4, 12])
Y = torch.tensor([0, 1, 2])
W = 5


def samples_of(known: list[int]) -> Samples:
    """Samples after a teacher call on five rows of each, ``known[b]`` of which are of transitions
    to come or of the last one; the states are near the discarded ones, the response is 0.3.
    """
    generator = torch.Generator().manual_seed(1)
    states = torch.randn(len(K), W, 3, generator=generator)
    advance = torch.tensor([W + 1 - count for count in known], dtype=torch.int32)
    x, k = states.flatten(0, 1), ((K - advance)[:, None] + torch.arange(W)).flatten().clamp(0, 18)
    out = TEACHER(x, TABLE.timesteps[k], Y.repeat_interleave(W))
    guess = TABLE.guess(k, x, out.eps)
    length = torch.full((3,), W, dtype=torch.int32)
    past = recalled(TeacherRows(*out, x, k), guess, length, advance, W)
    begun = Samples.begin(Y, torch.zeros(3).long(), past.rows.x[past.row[:, 1]] + 0.05, W)
    response = Response(torch.full((3,), 0.3), torch.ones(3))
    return begun._replace(k=K, past=past, response=response)


def drafts(
    noise: Tensor,
    samples: list[int] | Samples,
    source: int = DRAFTER,
    sweeps: int | None = None,
    length: list[int] | None = None,
    *,
    drafter: Drafter | None = None,
    table: Table = TABLE,
    rows: RowSelector | None = None,
) -> Draft:
    drafter = drafter or CallableDrafter(POOR)
    drafter = drafter.begin(DraftingBatch(table, None)) or drafter
    return draft_window(
        drafter,
        samples_of(samples) if isinstance(samples, list) else samples,
        noise,
        torch.tensor(length or [noise.shape[1] + 1] * 3) - 1,
        table=table,
        sweeps=sweeps,
        source=source,
        rows=rows,
    )


def test_autoregression_is_the_drafters_own_trajectory() -> None:
    noise = torch.randn(3, 4, 3)
    draft = drafts(noise, [1, 1, 1])
    assert draft.states.shape == (3, 5, 3)
    assert draft.means.shape == (3, 4, 3)
    for j in range(4):
        x = draft.states[:, j]
        eps = POOR(x, TABLE.timesteps[K + j], Y).eps
        expected = TABLE.mean(K + j, x, TABLE.guess(K + j, x, eps))
        torch.testing.assert_close(draft.means[:, j], expected, rtol=1e-4, atol=1e-5)
        expected = draft.means[:, j] + TABLE.sigma[K + j, None] * noise[:, j]
        torch.testing.assert_close(draft.states[:, j + 1], expected)


def test_what_each_source_makes_of_a_recycled_row() -> None:
    """Against the formulas, at a window of which the teacher has seen three transitions."""
    noise, known, j = torch.zeros(3, 4, 3), [4, 4, 4], 1
    past = samples_of(known).past

    def image(x: Tensor, teacher: MixtureTeacher) -> Tensor:
        return TABLE.guess(K + j, x, teacher(x, TABLE.timesteps[K + j], Y).eps)

    for source, name in enumerate(SOURCES):
        draft = drafts(noise, known, source)
        x, x_old = draft.states[:, j], past.rows.x[past.row[:, j + 1]]
        expected = {
            "response": image(x_old, TEACHER) + 0.3 * (x - x_old),
            "reuse": image(x_old, TEACHER),
            "drafter": image(x, POOR),
        }
        mean = TABLE.mean(K + j, x, expected[name])
        torch.testing.assert_close(draft.means[:, j], mean, rtol=1e-4, atol=1e-4)


def test_transitions_end_with_the_schedule() -> None:
    samples = samples_of([1, 1, 1])._replace(k=K + 6)
    draft = drafts(torch.zeros(3, 4, 3), samples, sweeps=1, length=[1] * 3, drafter=FrozenDrafter())
    assert draft.k.tolist() == [[7, 8, 9, 10, 11], [10, 11, 12, 13, 14], [18, 19, 19, 19, 19]]


# --- what the drafter is asked, and with which carry ---------------------------------------------


class Recorded(FrozenDrafter):
    """Keeps eps, and notes what it was asked."""

    def __init__(self, carry: Any = None, eps: float = 0.0) -> None:
        super().__init__("eps")
        self.first, self.eps, self.asked = carry, eps, []

    def carry_from(self, teacher_output: TeacherRows, rows: Tensor) -> Any:
        return self.first or (teacher_output.k[rows], None)

    def predict(self, x: Tensor, k: Tensor, y: Tensor, carry: Any) -> tuple[Tensor, Any]:
        self.asked.append((y.tolist(), k.tolist(), carry[0].tolist(), carry[1]))
        eps = torch.zeros_like(x)
        eps[1:2] = self.eps
        return eps, (k, None)


def test_carries_follow_their_rows() -> None:
    """Autoregression: from the drafter itself, unless the teacher saw the transition before."""
    drafter, noise = Recorded(), torch.zeros(3, 2, 3)
    drafts(noise, [1, 1, 3], length=[2, 1, 3], drafter=drafter)
    assert drafter.asked == [([0, 2], [1, 12], [0, 11], None), ([2], [13], [12], None)]
    drafter = Recorded()
    drafts(noise, [1, 1, 3], sweeps=1, drafter=drafter)
    _, k, carry, _ = drafter.asked[0]
    assert k == [1, 2, 4, 5, 12, 13]
    assert carry == [0, 0, 3, 3, 11, 12]  # of the nearest transition that the teacher has seen


def test_a_carry_is_never_written_to() -> None:
    """All rows of this one share the drafter's own memory."""

    class Learned(Recorded):
        token = torch.zeros(1)

        def carry_from(self, teacher_output: TeacherRows, rows: Tensor) -> Any:
            return {"h": self.token.expand(len(rows), 1)}

        def predict(self, x: Tensor, k: Tensor, y: Tensor, carry: Any) -> tuple[Tensor, Any]:
            self.asked.append(carry["h"].flatten().tolist())
            return torch.zeros_like(x), {"h": k[:, None].double()}

    drafter = Learned()
    drafts(torch.zeros(3, 3, 3), [1, 1, 1], sweeps=2, drafter=drafter)
    assert drafter.asked == [[0.0] * 9, [0.0, 1.0, 2.0, 0.0, 4.0, 5.0, 0.0, 12.0, 13.0]]
    assert Learned.token.item() == 0


@pytest.mark.parametrize(("source", "sweeps"), [(RESPONSE, None), (REUSE, 1)])
def test_what_needs_no_drafter_asks_none(source: int, sweeps: int | None) -> None:
    drafter = Recorded()
    calls = drafts(torch.zeros(3, 4, 3), [5, 3, 4], source, sweeps, drafter=drafter).calls
    asked = sorted(k for _, rows, _, _ in drafter.asked for k in rows)
    assert asked == [4 + 2, 4 + 3, 12 + 3]  # not K[b] + i for i < known - 1
    assert calls == (1 if sweeps else 2)


def answering(answer: Any, base: type = Recorded) -> Drafter:
    """A drafter that answers ``answer(x, k, carry)``."""

    class Drafting(base):  # type: ignore[misc]
        def predict(self, x: Tensor, k: Tensor, y: Tensor, carry: Any) -> Any:
            return answer(x, k, carry)

        if base is AnchoredDrafter:

            def change(self, x: Tensor, mean: Tensor, k: Tensor, y: Tensor, carry: Any) -> Any:
                return answer(x, k, carry)

    return Drafting(TEACHER if base is AnchoredDrafter else None)


@pytest.mark.parametrize(
    ("drafter", "error", "message"),
    [
        (Recorded(eps=torch.nan), FloatingPointError,
         r"drafter returned a non-finite eps at step \[4\] for sample \[1\]"),
        (answering(lambda x, k, carry: (x[:1], carry)), ValueError,
         r"drafter must return an eps of shape \[\d, 3\]"),
        (answering(lambda x, k, carry: x), TypeError,
         "drafter must return an eps and a carry, got Tensor"),
        (answering(lambda x, k, carry: (x[:1], carry), AnchoredDrafter), ValueError,
         r"drafter must return a change of shape \[\d, 3\]"),
        (answering(lambda x, k, carry: (x, carry, carry), AnchoredDrafter), TypeError,
         "must return a change and a carry, got 3 values"),
        (answering(lambda x, k, carry: (x, k)), TypeError,
         "must be built alike, got tuple and Tensor"),
        (Recorded(carry=[K]), TypeError, "carry must be a tensor, a tuple or dict of tensors"),
        (Recorded(carry=(torch.zeros(1, 3),)), ValueError, r"carry must have \d rows, got shape"),
        (Recorded(carry=(torch.tensor(1.0),)), ValueError, r"carry must have \d rows, got shape"),
    ],
)  # fmt: skip
def test_bad_drafters_are_refused(drafter: Drafter, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        drafts(torch.zeros(3, 2, 3), [1, 1, 1], drafter=drafter)


def test_changes_need_images() -> None:
    samples = samples_of([1, 1, 1])
    with pytest.raises(ValueError, match="signal and noise > 0 for a drafter that says how x0 ch"):
        drafts(torch.zeros(3, 1, 3), samples, drafter=AnchoredDrafter(TEACHER), table=FLOW)


@pytest.mark.parametrize("sweeps", [None, 1, 3])
@pytest.mark.parametrize("adds", [False, True])
def test_what_nobody_wants_reaches_no_draft(adds, sweeps, monkeypatch) -> None:
    """The drafter's answers where a source has its say and behind a window, what buffers held
    before, noise behind a window: all of it may be NaN. A window may have no row at all.
    """
    noise, known, length = torch.randn(3, 4, 3), [1, 3, 2], [5, 0, 4]
    wanted, settled = torch.tensor(length) - 1, torch.tensor([0, 2, 1])

    class Loose(AnchoredDrafter if adds else CallableDrafter):  # type: ignore[misc]
        def predict(self, x: Tensor, k: Tensor, y: Tensor, carry: Any) -> Any:
            return self.guess(x, self.table.timesteps[k], y).eps, carry

    class Spoiled(Loose):
        """Where nobody wants it."""

        def spoil(self, answer: Tensor, k: Tensor, y: Tensor, carry: Any) -> tuple[Tensor, Any]:
            step = k - K[y]  # each sample has a label of its own
            bad = (step >= wanted[y]) | (step < settled[y])
            return torch.where(bad[:, None], torch.nan, answer), carry

        def predict(self, x: Tensor, k: Tensor, y: Tensor, carry: Any) -> Any:
            answer, carry = super().predict(x, k, y, carry)
            return (answer, carry) if adds else self.spoil(answer, k, y, carry)

        def change(self, x: Tensor, mean: Tensor, k: Tensor, y: Tensor, carry: Any) -> Any:
            return self.spoil(*super().change(x, mean, k, y, carry)[:1], k, y, carry)

    first_guesses = free.rounds.drafted_window.first_guesses

    def with_old_values(*arguments: Any, noise: Tensor, clip: None, **more: Any) -> Any:
        first = first_guesses(*arguments, **more)
        for rows, unwritten in zip(first[:3], (1, 0, 1), strict=True):
            rows[:, unwritten:] = torch.nan
        roll_window_(
            *first[:3],
            noise,
            first.intercept,
            first.slope,
            change=None,
            settled=None,
            says="guess",
            coefficients=first.coefficients,
            clip=clip,
            first=0,
            end=noise.shape[1],
        )
        return first

    clean = drafts(noise, known, RESPONSE, sweeps, length, drafter=Loose(TEACHER))
    monkeypatch.setattr(free.rounds.drafted_window, "first_guesses", with_old_values)
    rows = EveryRow(3, 20, K.device)
    for b in range(3):
        noise[b, max(length[b] - 1, 0) :] = torch.nan
    spoiled = drafts(noise, known, RESPONSE, sweeps, length, drafter=Spoiled(TEACHER), rows=rows)
    for b in range(3):
        upto = max(length[b] - 1, 0)
        torch.testing.assert_close(spoiled.means[b, :upto], clean.means[b, :upto])
        torch.testing.assert_close(spoiled.states[b, : upto + 1], clean.states[b, : upto + 1])
    rows.check()
