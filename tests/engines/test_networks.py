"""A window drafted by one graph is the window that the drafter drafts call by call."""

from __future__ import annotations

from typing import NamedTuple

import pytest
import torch
from torch import Tensor

from free import Schedule
from free.drafters import Drafter, DraftingBatch
from free.drafters.protocol import drafts_windows
from free.engines.networks import EngineDrafter, EngineTeacher, guidance_scale
from free.export.package import torch_engine
from free.models.guidance import Guidance, GuidedTeacher
from free.models.output import TeacherRows
from free.reference.draft import DRAFTER, RESPONSE, REUSE
from free.rounds.draft import draft_window
from free.rounds.state import Draft, Recycled, Response, Samples
from free.schedule.table import Prediction, Table
from tests.exports import Spied, close, small_model
from tests.rows import recalled

TABLE = Table.of(Schedule.ddpm(20), "cpu")
PREDICTION = Prediction.of(TABLE)
TEACHER, TORCH_DRAFTER = small_model()
GUIDANCE = Guidance(2.5, 1, TEACHER.null_label)
W = 4
B = 3


def engine(sweeps: int | None) -> tuple[EngineTeacher, EngineDrafter]:
    teacher, drafter = torch_engine(TEACHER, TORCH_DRAFTER, W, sweeps, max_batch=B)
    assert isinstance(drafter, EngineDrafter)
    return teacher, drafter


class Round(NamedTuple):
    """What a sampler knows when it drafts."""

    x: Tensor
    k: Tensor
    y: Tensor
    past: Recycled
    guidance: Guidance | None

    def draft(
        self,
        drafter: Drafter,
        noise: Tensor,
        sweeps: int | None,
        source: int = DRAFTER,
        length: list[int] | None = None,
    ) -> Draft:
        drafter.begin(DraftingBatch(TABLE, self.guidance))
        with torch.no_grad():
            samples = Samples.begin(self.y, torch.zeros_like(self.k), self.x, noise.shape[1] + 1)
            response = Response(torch.full((B,), 0.3), torch.ones(B))
            return draft_window(
                drafter,
                samples._replace(k=self.k, past=self.past, response=response),
                noise,
                torch.tensor(length or [noise.shape[1] + 1] * B, dtype=torch.int32),
                prediction=PREDICTION,
                sweeps=sweeps,
                source=source,
            )


#: Rows of the teacher's last call and the transitions made of them.
ROUNDS = {
    "first": ([1, 1, 1], [1, 1, 1]),
    "paces": ([4, 3, 4], [4, 1, 2]),
    "all seen": ([4, 4, 4], [1, 1, 1]),
    "one all seen": ([4, 4, 4], [4, 1, 3]),
    "end": ([4, 3, 2], [4, 1, 2]),
}


def round_after(course: str, guided: bool = False) -> Round:
    """After a teacher call on some states of each sample."""
    rows, advance = ROUNDS[course]
    k = torch.tensor([17, 18, 19] if course == "end" else [4, 6, 15])
    generator = torch.Generator().manual_seed(2)
    starts = k - torch.tensor(advance)
    k_rows = torch.cat([torch.arange(s, s + r) for s, r in zip(starts, rows, strict=True)])
    labels = torch.tensor([0, 7, TEACHER.null_label])
    y_rows = labels.repeat_interleave(torch.tensor(rows))
    x_rows = torch.randn(len(k_rows), *TEACHER.sample_shape, generator=generator)
    teacher = GuidedTeacher(TEACHER, GUIDANCE) if guided else TEACHER
    with torch.no_grad():
        out = teacher(x_rows, TABLE.timesteps[k_rows], y_rows)
    guess = PREDICTION.from_eps(k_rows, x_rows, out.eps)
    length, made = (torch.tensor(v, dtype=torch.int32) for v in (rows, advance))
    past = recalled(TeacherRows(*out, x_rows, k_rows), guess, length, made, W)
    nudge = torch.randn(B, *TEACHER.sample_shape, generator=generator)
    x = past.rows.x[past.row[:, 1]] + 0.1 * nudge
    return Round(x, k, labels, past, GUIDANCE if guided else None)


def noise_of(drafts: int = W - 1) -> Tensor:
    generator = torch.Generator().manual_seed(3)
    return torch.randn(B, drafts, *TEACHER.sample_shape, generator=generator)


@pytest.fixture(scope="module", params=[None, 1, 3], ids="sweeps={}".format)
def drafter(request: pytest.FixtureRequest) -> EngineDrafter:
    """Only its window's graphs: a call of any other would fail."""
    drafter = engine(request.param)[1]
    sessions = {name: s for name, s in drafter.sessions.items() if name.startswith("draft_")}
    sessions["draft"] = drafter.sessions["draft"]
    return EngineDrafter(sessions, TEACHER.config, W, drafter.sweeps)


PLAIN, GUIDED = False, True


@pytest.mark.parametrize(
    ("course", "guided", "source", "drafts", "length"),
    [
        ("first", PLAIN, DRAFTER, 3, None),
        ("paces", GUIDED, DRAFTER, 3, None),
        ("all seen", GUIDED, DRAFTER, 3, None),
        # Some samples ask about nothing while others do.
        ("one all seen", GUIDED, RESPONSE, 3, None),
        ("paces", GUIDED, RESPONSE, 3, None),
        ("first", GUIDED, REUSE, 3, None),
        ("one all seen", GUIDED, REUSE, 3, None),
        # Narrower than the graph.
        ("paces", PLAIN, DRAFTER, 1, None),
        ("first", PLAIN, DRAFTER, 2, None),
        # Each sample to its own length.
        ("paces", PLAIN, DRAFTER, 3, [1, 4, 3]),
        ("paces", PLAIN, RESPONSE, 3, [2, 1, 1]),
        ("paces", PLAIN, RESPONSE, 3, [4, 2, 1]),
        # Where sigma is 0, and past the last transition.
        ("end", GUIDED, DRAFTER, 3, [3, 2, 1]),
    ],
)
def test_windows_are_the_torch_drafters(
    drafter: EngineDrafter,
    course: str,
    guided: bool,
    source: int,
    drafts: int,
    length: list[int] | None,
) -> None:
    at, noise, sweeps = round_after(course, guided), noise_of(drafts), drafter.sweeps
    expected = at.draft(TORCH_DRAFTER, noise, sweeps, source, length)
    got = at.draft(drafter, noise, sweeps, source, length)
    assert got.states.shape == (B, drafts + 1, *TEACHER.sample_shape)
    assert got.means.shape == (B, drafts, *TEACHER.sample_shape)
    assert got.states.is_contiguous()
    assert got.means.is_contiguous()
    for b, rows in enumerate(length or [drafts + 1] * B):
        close(got.states[b, :rows], expected.states[b, :rows])
        close(got.means[b, : rows - 1], expected.means[b, : rows - 1])
    assert torch.equal(got.sigma, expected.sigma)
    assert got.calls == (drafts if sweeps is None else min(sweeps, drafts))
    if source == DRAFTER and length is None:  # the networks have a part in it
        unmoved = PREDICTION.mean(at.k, at.x, at.past.guess[at.past.row[:, 0]])
        assert (got.means[:, 0] - unmoved).flatten(1).abs().amax(1).min() > 1e-4


def test_nothing_asked_is_nothing_called(drafter: EngineDrafter) -> None:
    """With every transition recycled no graph is needed; here there is none to call."""
    silent = EngineDrafter({}, TEACHER.config, W, drafter.sweeps)
    at = round_after("all seen")
    assert at.draft(silent, noise_of(), drafter.sweeps, REUSE).calls == 0
    with pytest.raises(ValueError, match="engine must have the graph draft for this"):
        at.draft(silent, noise_of(), drafter.sweeps)


@pytest.mark.parametrize("source", [DRAFTER, RESPONSE])
def test_a_mean_never_sees_its_own_or_later_noise(drafter: EngineDrafter, source: int) -> None:
    at, noise = round_after("paces", guided=True), noise_of()
    means = at.draft(drafter, noise, drafter.sweeps, source).means
    for j in range(W - 1):
        other = noise.clone()
        other[:, j:] = torch.randn(B, W - 1 - j, *TEACHER.sample_shape)
        changed = at.draft(drafter, other, drafter.sweeps, source).means
        torch.testing.assert_close(changed[:, : j + 1], means[:, : j + 1], rtol=0, atol=0)
        if j < W - 2:
            assert (changed[:, j + 1] - means[:, j + 1]).abs().max() > 1e-3


def test_nan_stays_in_later_transitions_and_in_its_sample(drafter: EngineDrafter) -> None:
    """Of the graph itself: not even a product with zero reaches back."""
    session = Spied(drafter.sessions["draft"])
    spied = EngineDrafter({"draft": session}, TEACHER.config, W, drafter.sweeps)
    round_after("paces").draft(spied, noise_of(), drafter.sweeps)
    inputs = session.calls[0]
    expected = session.run(inputs)["means"]
    for j in range(W - 1):
        noise = inputs["noise"].clone()
        noise[1, j:] = torch.nan
        means = session.run({**inputs, "noise": noise})["means"]
        torch.testing.assert_close(means[[0, 2]], expected[[0, 2]], rtol=0, atol=0)
        torch.testing.assert_close(means[1, : j + 1], expected[1, : j + 1], rtol=0, atol=0)
        assert means[1, j + 1 :].isnan().all()


def test_other_windows_are_drafted_step_by_step() -> None:
    """Wider ones, and other sweeps than the graph's; features may be of lower precision."""
    drafter = engine(2)[1]
    assert drafts_windows(drafter)
    assert [drafter.drafts(width, 2) for width in (2, W, W + 1)] == [True, True, False]
    assert not drafter.drafts(W, None)
    assert not drafter.drafts(W, 1)
    at = round_after("paces")
    assert at.past.rows.feature is not None
    rows = at.past.rows._replace(feature=at.past.rows.feature.bfloat16())
    low = at._replace(past=at.past._replace(rows=rows))
    for case, sweeps in ((at, None), (at, 1), (low, 1), (low, 2)):
        got, expected = (case.draft(d, noise_of(), sweeps) for d in (drafter, TORCH_DRAFTER))
        close(got.means, expected.means)
        assert got.calls == expected.calls


def test_features_that_no_drafter_can_use(drafter: EngineDrafter) -> None:
    at = round_after("first")
    assert at.past.rows.feature is not None
    at.past.rows.feature[1] = torch.nan
    with pytest.raises(FloatingPointError, match=r"drafter returned a non-finite .* sample \[1\]"):
        at.draft(drafter, noise_of(), drafter.sweeps)
    rows = at.past.rows._replace(feature=None)
    at = at._replace(past=at.past._replace(rows=rows))
    with pytest.raises(ValueError, match="teacher must return a feature for this drafter, got"):
        at.draft(drafter, noise_of(), drafter.sweeps)


def test_teachers_are_the_networks() -> None:
    teacher = engine(1)[0]
    x, t = torch.randn(5, *TEACHER.sample_shape), torch.arange(0, 1000, 200)
    y = torch.arange(11, 16)
    with torch.no_grad():
        plain, guided = TEACHER(x, t, y), GuidedTeacher(TEACHER, GUIDANCE)(x, t, y)
    for call, expected in ((teacher, plain), (teacher.guided(GUIDANCE), guided)):
        for got, wanted in zip(call(x, t, y), expected, strict=True):
            close(got, wanted)
    assert (teacher.null_label, teacher.num_classes) == (15, 15)
    assert teacher.sample_shape == (2, 4, 4)


def test_guidance_is_a_scale_for_each_channel() -> None:
    cpu = torch.device("cpu")
    assert guidance_scale(Guidance(2.5, 3, 0), 4, cpu).tolist() == [2.5, 2.5, 2.5, 1.0]
    assert guidance_scale(Guidance(2.5, None, 0), 2, cpu).tolist() == [2.5, 2.5]


def test_graphs_that_were_not_exported_are_named() -> None:
    at = round_after("first", guided=True)
    teacher, drafter = torch_engine(TEACHER, TORCH_DRAFTER, W, 1, B, guidance=(False,))
    only_guided, _ = torch_engine(TEACHER, None, W, guidance=(True,))
    for call, graph, others in (
        (lambda: teacher.guided(GUIDANCE)(at.x, at.k, at.y), "teacher_guided", "teacher"),
        (lambda: at.draft(drafter, noise_of(), 1), "draft_guided", "teacher, drafter, draft"),
        (lambda: only_guided(at.x, at.k, at.y), "teacher", "teacher_guided"),
    ):
        message = f"have the graph {graph} for this, got {others}: export with --guidance both"
        with pytest.raises(ValueError, match=message):
            call()
