"""Drafting a window: autoregression, sweeps, recycling, and the rule that makes them exact."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

import free.rounds.drafted_window
from free import FrozenDrafter, Schedule
from free.drafters import Drafter, DraftingBatch
from free.models.output import TeacherRows
from free.reference.draft import DRAFTER, RESPONSE, REUSE, SOURCES
from free.rounds.draft import draft_window
from free.rounds.row_selection import EveryRow, WantedRows
from free.rounds.state import Draft, Evidence, Recycled, recycle
from free.schedule.table import Prediction, Table
from tests.networks import AnchoredDrafter, CallableDrafter, MixtureTeacher

TABLE = Table.of(Schedule.ddpm(20), "cpu")
PREDICTION = Prediction.of(TABLE)
TEACHER = MixtureTeacher(3)
K = torch.tensor([1, 4, 12])
Y = torch.tensor([0, 1, 2])
W = 5


def past_of(known: list[int]) -> tuple[Recycled, Tensor]:
    """A teacher call on five rows of each sample, ``known[b]`` of which are still ahead; and a
    state near the discarded one.
    """
    generator = torch.Generator().manual_seed(1)
    states = torch.randn(len(K), W, 3, generator=generator)
    advance = torch.tensor([W + 1 - count for count in known], dtype=torch.int32)
    length = torch.full((3,), W, dtype=torch.int32)
    k = (K - advance)[:, None] + torch.arange(W)
    x_rows, k_rows = states.flatten(0, 1), k.flatten().clamp(0, 18)
    out = TEACHER(x_rows, TABLE.timesteps[k_rows], Y.repeat_interleave(W))
    guess = PREDICTION.from_eps(k_rows, x_rows, out.eps)
    past = recycle(TeacherRows(*out, x_rows, k_rows), guess, length, advance, W, True)
    return past, past.rows.x[past.row[:, 1]] + 0.05


def drafts(
    noise: Tensor,
    known: list[int],
    source: int = DRAFTER,
    sweeps: int | None = None,
    length: list[int] | None = None,
    response: float = 0.3,
    compare: bool = False,
    drafter: Drafter | None = None,
) -> Draft:
    drafter = drafter or CallableDrafter(MixtureTeacher(3, shift=0.1))
    drafter.begin(DraftingBatch(TABLE, None))
    past, x = past_of(known)
    rows = torch.tensor(length or [noise.shape[1] + 1] * 3, dtype=torch.int32)
    sums = Evidence.none(3, x.device)._replace(dot=torch.full((3,), response), square=torch.ones(3))
    sources = torch.full((3,), source)
    state = (drafter, PREDICTION, x, K, Y, past, noise, rows, sweeps, sources, sums, compare)
    return draft_window(*state)


def test_autoregression_is_the_drafters_own_trajectory() -> None:
    noise = torch.randn(3, 4, 3)
    states, means = drafts(noise, [1, 1, 1])[:2]
    assert states.shape == (3, 5, 3)
    assert means.shape == (3, 4, 3)
    network = MixtureTeacher(3, shift=0.1)
    for j in range(4):
        eps = network(states[:, j], TABLE.timesteps[K + j], Y).eps
        expected = TABLE.mean(K + j, states[:, j], eps)
        torch.testing.assert_close(means[:, j], expected, rtol=1e-4, atol=1e-5)
        expected = means[:, j] + TABLE.sigma[K + j, None] * noise[:, j]
        torch.testing.assert_close(states[:, j + 1], expected)


@pytest.mark.parametrize("known", [[1, 1, 1], [1, 3, 5]])
def test_enough_sweeps_are_autoregression(known: list[int]) -> None:
    noise = torch.randn(3, 4, 3)
    exact = drafts(noise, known)
    errors = []
    for sweeps in (1, 2, 3, 4):
        swept = drafts(noise, known, sweeps=sweeps)
        assert swept.calls == sweeps
        errors.append((swept.means - exact.means).abs().amax((0, 2)))
        assert errors[-1][:sweeps].max() < 1e-4  # each sweep settles one more transition
    assert errors[0][1:].max() > 1e-3
    assert exact.calls == 4


@pytest.mark.parametrize("source", range(len(SOURCES)))
@pytest.mark.parametrize("sweeps", [None, 1, 2])
def test_a_mean_never_sees_its_own_or_later_noise(source: int, sweeps: int | None) -> None:
    noise, known = torch.randn(3, 4, 3), [1, 3, 5]
    means = drafts(noise, known, source, sweeps).means
    for j in range(4):
        other = noise.clone()
        other[:, j:] = torch.randn(3, 4 - j, 3)
        changed = drafts(other, known, source, sweeps).means
        torch.testing.assert_close(changed[:, : j + 1], means[:, : j + 1], rtol=0, atol=0)
        if j < 3:
            assert (changed[:, j + 1] - means[:, j + 1]).abs().max() > 1e-3


@pytest.mark.parametrize("sweeps", [None, 2])
def test_lengths_change_nothing_within_them(sweeps: int | None) -> None:
    """A sample near its end drafts less; what it does draft is the same."""
    noise, known = torch.randn(3, 4, 3), [2, 3, 5]
    full = drafts(noise, known, RESPONSE, sweeps)
    shorter = drafts(noise, known, RESPONSE, sweeps, length=[1, 5, 3])
    for sample, rows in enumerate([1, 5, 3]):
        kept = slice(0, rows - 1)
        torch.testing.assert_close(shorter.means[sample, kept], full.means[sample, kept])
        torch.testing.assert_close(shorter.states[sample, :rows], full.states[sample, :rows])


def test_samples_are_drafted_independently() -> None:
    noise, known = torch.randn(3, 4, 3), [2, 4, 5]
    together = drafts(noise, known, REUSE, 2)
    other = noise.clone()
    other[1] += 1
    changed = drafts(other, known, REUSE, 2)
    for sample in (0, 2):
        torch.testing.assert_close(changed.means[sample], together.means[sample], rtol=0, atol=0)


def test_what_each_source_makes_of_a_recycled_row() -> None:
    """Against the formulas, at a window of which the teacher has seen three transitions."""
    noise, known, j = torch.zeros(3, 4, 3), [4, 4, 4], 1
    past, _ = past_of(known)
    network = MixtureTeacher(3, shift=0.1)

    def image(x: Tensor, teacher: MixtureTeacher) -> Tensor:
        return PREDICTION.from_eps(K + j, x, teacher(x, TABLE.timesteps[K + j], Y).eps)

    for source, name in enumerate(SOURCES):
        draft = drafts(noise, known, source, sweeps=None, compare=True)
        x, x_old = draft.states[:, j], past.rows.x[past.row[:, j + 1]]
        expected = {
            "response": image(x_old, TEACHER) + 0.3 * (x - x_old),
            "reuse": image(x_old, TEACHER),
            "control_variate": image(x_old, TEACHER) + image(x, network) - image(x_old, network),
            "drafter": image(x, network),
        }
        mean = PREDICTION.mean(K + j, x, expected[name])
        torch.testing.assert_close(draft.means[:, j], mean, rtol=1e-4, atol=1e-4)
        assert draft.candidates is not None
        for other, candidate in zip(SOURCES, draft.candidates[:, :, j], strict=True):
            torch.testing.assert_close(candidate, expected[other], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("sweeps", [None, 2])
def test_one_row_needs_no_drafter(sweeps: int | None) -> None:
    _, x = past_of([1, 2, 3])
    draft = drafts(torch.zeros(3, 0, 3), [1, 2, 3], sweeps=sweeps)
    torch.testing.assert_close(draft.states, x[:, None])
    assert draft.means.shape == (3, 0, 3)
    assert draft.calls == 0


def test_transitions_and_sigmas_end_with_the_schedule() -> None:
    past, x = past_of([1, 1, 1])
    given = (torch.zeros(3, 4, 3), torch.ones(3), 1, torch.zeros_like(K))
    drafter = FrozenDrafter()
    drafter.begin(DraftingBatch(TABLE, None))
    draft = draft_window(
        drafter, PREDICTION, x, K + 6, Y, past, *given, Evidence.none(3, x.device), False
    )
    assert draft.at.tolist() == [[7, 8, 9, 10, 11], [10, 11, 12, 13, 14], [18, 19, 19, 19, 19]]
    assert torch.equal(draft.sigma, TABLE.sigma[draft.at])


class Recorded(FrozenDrafter):
    """Keeps eps, and notes what it was asked."""

    def __init__(self, carry: Any = None, eps: float = 0.0) -> None:
        super().__init__("eps")
        self.first, self.eps, self.seen = carry, eps, []

    def carry_from(self, teacher_output: TeacherRows, rows: Tensor) -> Any:
        return self.first or (teacher_output.k[rows], None)

    def predict(self, x: Tensor, k: Tensor, y: Tensor, carry: Any) -> tuple[Tensor, Any]:
        self.seen.append((y.tolist(), k.tolist(), carry[0].tolist(), carry[1]))
        eps = torch.zeros_like(x)
        eps[1:2] = self.eps
        return eps, (k, None)


def test_carries_follow_their_rows() -> None:
    """Autoregression: from the drafter itself, unless the teacher saw the transition before."""
    drafter, noise = Recorded(), torch.zeros(3, 2, 3)
    drafts(noise, [1, 1, 3], length=[2, 1, 3], drafter=drafter)
    assert drafter.seen == [([0, 2], [1, 12], [0, 11], None), ([2], [13], [12], None)]
    drafter = Recorded()
    drafts(noise, [1, 1, 3], sweeps=1, drafter=drafter)
    _, k, carry, _ = drafter.seen[0]
    assert k == [1, 2, 4, 5, 12, 13]
    assert carry == [0, 0, 3, 3, 11, 12]  # of the nearest transition that the teacher has seen


def test_bad_drafters_are_refused() -> None:
    noise = torch.zeros(3, 1, 3)
    with pytest.raises(
        FloatingPointError,
        match=r"drafter returned a non-finite eps at step \[4\] for sample \[1\]",
    ):
        drafts(noise, [1, 1, 1], drafter=Recorded(eps=torch.nan))

    class Short(Recorded):
        def predict(self, x: Tensor, k: Tensor, y: Tensor, carry: Any) -> tuple[Tensor, Any]:
            return x[:1], carry

    with pytest.raises(ValueError, match=r"drafter must return an eps of shape \[3, 3\]"):
        drafts(noise, [1, 1, 1], drafter=Short())
    with pytest.raises(TypeError, match="carry must be a tensor, a tuple or dict of tensors"):
        drafts(noise, [1, 1, 1], drafter=Recorded(carry=[K]))
    for carry in (torch.zeros(1, 3), torch.tensor(1.0)):
        with pytest.raises(ValueError, match=r"carry must have \d+ rows, got shape \["):
            drafts(noise, [1, 1, 1], drafter=Recorded(carry=(carry,)))

    class Alone(Recorded):
        def predict(self, x: Tensor, k: Tensor, y: Tensor, carry: Any) -> Any:
            return x

    with pytest.raises(TypeError, match="drafter must return an eps and a carry, got Tensor"):
        drafts(noise, [1, 1, 1], drafter=Alone())

    class ShortChange(AnchoredDrafter):
        def change(self, x: Tensor, *rest: Any) -> tuple[Tensor, Any]:
            return x[:1], rest[-1]

    with pytest.raises(ValueError, match=r"drafter must return a change of shape \[3, 3\]"):
        drafts(noise, [1, 1, 1], drafter=ShortChange(TEACHER))

    class Three(AnchoredDrafter):
        def change(self, x: Tensor, *rest: Any) -> Any:
            return x, rest[-1], rest[-1]

    with pytest.raises(TypeError, match="must return a change and a carry, got 3 values"):
        drafts(noise, [1, 1, 1], drafter=Three(TEACHER))


def test_schedules_without_x0_draft_eps() -> None:
    flow = Schedule([3, 2, 1, 0], [1.0] * 4, [-0.25] * 4, [0.5, 0.4, 0.3, 0.0])
    prediction = Prediction.of(Table.of(flow, "cpu"))
    x, eps = torch.randn(2, 3, 4)
    k = torch.tensor([0, 1, 2])
    assert prediction.signal is None
    torch.testing.assert_close(prediction.from_eps(k, x, eps), eps)
    torch.testing.assert_close(prediction.mean(k, x, eps), x - 0.25 * eps)


def test_prediction_is_the_table_rewritten() -> None:
    x, eps = torch.randn(2, 18, 5)
    k = torch.arange(18)
    image = PREDICTION.from_eps(k, x, eps)
    torch.testing.assert_close(
        PREDICTION.mean(k, x, image), TABLE.mean(k, x, eps), rtol=1e-4, atol=1e-4
    )


def test_teacher_output_of_a_discarded_row_is_that_transitions() -> None:
    past, _ = past_of([1, 3, 5])
    assert past.known.tolist() == [1, 3, 5]
    k = past.rows.k[past.row]
    for b, known in enumerate([1, 3, 5]):
        wanted = K[b] - 1 + torch.arange(5).clamp(max=known - 1)
        assert k[b].tolist() == wanted.tolist()


def test_a_carry_is_never_written_to() -> None:
    """All rows of this one share the drafter's own memory."""

    class Learned(Recorded):
        token = torch.zeros(1)

        def carry_from(self, teacher_output: TeacherRows, rows: Tensor) -> Any:
            return {"h": self.token.expand(len(rows), 1)}

        def predict(self, x: Tensor, k: Tensor, y: Tensor, carry: Any) -> tuple[Tensor, Any]:
            self.seen.append(carry["h"].flatten().tolist())
            return torch.zeros_like(x), {"h": k[:, None].double()}

    drafter = Learned()
    drafts(torch.zeros(3, 3, 3), [1, 1, 1], sweeps=2, drafter=drafter)
    assert drafter.seen == [[0.0] * 9, [0.0, 1.0, 2.0, 0.0, 4.0, 5.0, 0.0, 12.0, 13.0]]
    assert Learned.token.item() == 0


def test_carries_must_be_built_alike() -> None:
    class Changing(Recorded):
        def predict(self, x: Tensor, k: Tensor, y: Tensor, carry: Any) -> tuple[Tensor, Any]:
            return torch.zeros_like(x), k

    with pytest.raises(TypeError, match="must be built alike, got tuple and Tensor"):
        drafts(torch.zeros(3, 3, 3), [1, 1, 1], drafter=Changing())


@pytest.mark.parametrize("source", [RESPONSE, REUSE])
@pytest.mark.parametrize("sweeps", [None, 1])
def test_what_needs_no_drafter_asks_none(source: int, sweeps: int | None) -> None:
    drafter = Recorded()
    calls = drafts(torch.zeros(3, 4, 3), [5, 3, 4], source, sweeps, drafter=drafter).calls
    asked = sorted(k for _, rows, _, _ in drafter.seen for k in rows)
    assert asked == [4 + 2, 4 + 3, 12 + 3]  # not K[b] + i for i < known - 1
    assert calls == (1 if sweeps else 2)


def test_changes_need_images() -> None:
    table = Table.of(Schedule([3, 2, 1, 0], [1.0] * 4, [-0.25] * 4, [0.5, 0.4, 0.3, 0.0]), "cpu")
    past, x = past_of([1, 1, 1])

    none = Evidence.none(3, x.device)
    state = (torch.zeros(3, 1, 3), torch.full((3,), 2).int(), 1, K, none, False)
    past = past._replace(rows=past.rows._replace(k=past.rows.k.clamp(max=2)))
    with pytest.raises(
        ValueError, match="must have signal and noise > 0 for a drafter that says how x0 changes"
    ):
        draft_window(
            AnchoredDrafter(TEACHER), Prediction.of(table), x, K.clamp(max=2), Y, past, *state
        )


@pytest.mark.parametrize("sweeps", [None, 1, 3])
@pytest.mark.parametrize("adds", [False, True])
def test_what_nobody_wants_reaches_no_draft(
    adds: bool, sweeps: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The drafter's answers where a source has its say and behind a window, what buffers held
    before, noise behind a window: all of it may be NaN. A window may have no row at all.
    """
    made = AnchoredDrafter if adds else CallableDrafter
    noise, known, length = torch.randn(3, 4, 3), [1, 3, 2], [5, 0, 4]
    wanted, settled = torch.tensor(length) - 1, torch.tensor([0, 2, 1])

    class Loose(made):  # type: ignore[valid-type, misc]
        def predict(self, x: Tensor, k: Tensor, y: Tensor, carry: Any) -> Any:
            return self.guess(x, self.table.timesteps[k], y).eps, carry

    class Spoiled(Loose):  # type: ignore[valid-type, misc]
        """Where nobody wants it."""

        def spoil(self, said: Tensor, k: Tensor, y: Tensor, carry: Any) -> tuple[Tensor, Any]:
            step = k - K[y]  # each sample has a label of its own
            bad = (step >= wanted[y]) | (step < settled[y])
            return torch.where(bad[:, None], torch.nan, said), carry

        def predict(self, x: Tensor, k: Tensor, y: Tensor, carry: Any) -> Any:
            said, carry = super().predict(x, k, y, carry)
            return (said, carry) if adds else self.spoil(said, k, y, carry)

        def change(self, x: Tensor, mean: Tensor, k: Tensor, y: Tensor, carry: Any) -> Any:
            said, carry = super().change(x, mean, k, y, carry)
            return self.spoil(said, k, y, carry)

    def with_old_values(*arguments: Any) -> Any:
        first = first_guesses(*arguments)
        for rows in first[:3]:
            rows[:, 1:] = torch.nan
        return first

    past, x = past_of(known)
    sums = Evidence.none(3, x.device)._replace(dot=torch.full((3,), 0.3), square=torch.ones(3))
    source = torch.full((3,), RESPONSE)

    def draft(drafter: Any, rows: Any, noise: Tensor) -> Draft:
        drafter.begin(DraftingBatch(TABLE, None))
        lengths = torch.tensor(length)
        given = (drafter, PREDICTION, x, K, Y, past, noise, lengths, sweeps, source, sums)
        return draft_window(*given, False, False, None, rows)

    first_guesses = free.rounds.drafted_window.first_guesses
    clean = draft(Loose(TEACHER), WantedRows(), noise)
    monkeypatch.setattr(free.rounds.drafted_window, "first_guesses", with_old_values)
    rows = EveryRow(3, 20, x.device)
    for b in range(3):
        noise[b, max(length[b] - 1, 0) :] = torch.nan
    spoiled = draft(Spoiled(TEACHER), rows, noise)
    for b in range(3):
        upto = max(length[b] - 1, 0)
        torch.testing.assert_close(spoiled.means[b, :upto], clean.means[b, :upto])
        torch.testing.assert_close(spoiled.states[b, : upto + 1], clean.states[b, : upto + 1])
    rows.check()
