"""A window drafted by one graph is the window that the drafter drafts call by call."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

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
from free.reference.draft import CONTROL_VARIATE, DRAFTER, RESPONSE, REUSE
from free.rounds.draft import draft_window
from free.rounds.state import Draft, Evidence, Recycled, recycle
from free.schedule.table import Prediction, Table
from tests.exports import close, small_model

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

    def draft(self, drafter: Drafter, noise: Tensor, sweeps: int | None, **options: Any) -> Draft:
        """Drafts of every sample by the same source, whole windows by default."""
        length = options.get("length") or [noise.shape[1] + 1] * B
        drafter.begin(DraftingBatch(TABLE, self.guidance))
        with torch.no_grad():
            return draft_window(
                drafter,
                PREDICTION,
                self.x,
                self.k,
                self.y,
                self.past,
                noise,
                torch.tensor(length, dtype=torch.int32),
                sweeps,
                torch.full((B,), options.get("source", DRAFTER)),
                Evidence.none(B, self.x.device)._replace(
                    dot=torch.full((B,), 0.3), square=torch.ones(B)
                ),
                options.get("compare", False),
                options.get("source") == CONTROL_VARIATE,
            )


def round_after(
    rows: list[int], advance: list[int], guided: bool = False, k: tuple[int, ...] = (4, 6, 15)
) -> Round:
    """After a teacher call on ``rows[b]`` states of each sample, ``advance[b]`` of which were
    made. The samples' next transitions are ``k``.
    """
    generator = torch.Generator().manual_seed(2)
    starts = [last - made for last, made in zip(k, advance, strict=True)]
    k_rows = torch.cat([torch.arange(s, s + r) for s, r in zip(starts, rows, strict=True)])
    labels = torch.tensor([0, 7, TEACHER.null_label])
    y_rows = labels.repeat_interleave(torch.tensor(rows))
    x_rows = torch.randn(len(k_rows), *TEACHER.sample_shape, generator=generator)
    teacher = GuidedTeacher(TEACHER, GUIDANCE) if guided else TEACHER
    with torch.no_grad():
        out = teacher(x_rows, TABLE.timesteps[k_rows], y_rows)
    guess = PREDICTION.from_eps(k_rows, x_rows, out.eps)
    length, made = (torch.tensor(v, dtype=torch.int32) for v in (rows, advance))
    past = recycle(TeacherRows(*out, x_rows, k_rows), guess, length, made, W, True)
    x = past.rows.x[past.row[:, 1]] + 0.1 * torch.randn(
        B, *TEACHER.sample_shape, generator=generator
    )
    return Round(x, torch.tensor(k), labels, past, GUIDANCE if guided else None)


def noise_of(drafts: int) -> Tensor:
    generator = torch.Generator().manual_seed(3)
    return torch.randn(B, drafts, *TEACHER.sample_shape, generator=generator)


#: Rows of the teacher's last call and what was made of them.
ROUNDS = {
    "first": ([1, 1, 1], [1, 1, 1]),
    "paces": ([4, 3, 4], [4, 1, 2]),
    "all seen": ([4, 4, 4], [1, 1, 1]),
    "one all seen": ([4, 4, 4], [4, 1, 3]),
}


@pytest.fixture(scope="module", params=[None, 1, 2, 3], ids="sweeps={}".format)
def drafter(request: pytest.FixtureRequest) -> EngineDrafter:
    """Only its window's graphs: whatever else was asked for would be missed."""
    drafter = engine(request.param)[1]
    sessions = {name: s for name, s in drafter.sessions.items() if name.startswith("draft_")}
    sessions["draft"] = drafter.sessions["draft"]
    return EngineDrafter(sessions, TEACHER.config, W, drafter.sweeps)


def compare(drafter: EngineDrafter, at: Round, drafts: int = W - 1, **options: Any) -> Draft:
    """Both ways, compared up to each sample's length."""
    noise, sweeps = noise_of(drafts), drafter.sweeps
    expected = at.draft(TORCH_DRAFTER, noise, sweeps, **options)
    got = at.draft(drafter, noise, sweeps, **options)
    assert got.states.shape == (B, drafts + 1, *TEACHER.sample_shape)
    assert got.means.shape == (B, drafts, *TEACHER.sample_shape)
    assert got.states.is_contiguous()
    assert got.means.is_contiguous()
    for b, rows in enumerate(options.get("length") or [drafts + 1] * B):
        close(got.states[b, :rows], expected.states[b, :rows])
        close(got.means[b, : rows - 1], expected.means[b, : rows - 1])
    assert torch.equal(got.at, expected.at)
    assert torch.equal(got.sigma, expected.sigma)
    return got


@pytest.mark.parametrize("guided", [False, True], ids=["plain", "guided"])
@pytest.mark.parametrize("course", ROUNDS)
def test_windows_are_the_torch_drafters(drafter: EngineDrafter, course: str, guided: bool) -> None:
    at = round_after(*ROUNDS[course], guided)
    draft = compare(drafter, at)
    assert draft.calls == (W - 1 if drafter.sweeps is None else drafter.sweeps)
    # The networks have a part in it, and the samples are not alike.
    unmoved = PREDICTION.mean(at.k, at.x, at.past.guess[at.past.row[:, 0]])
    assert (draft.means[:, 0] - unmoved).flatten(1).abs().amax(1).min() > 1e-4


@pytest.mark.parametrize("source", [RESPONSE, REUSE], ids=["response", "reuse"])
@pytest.mark.parametrize("course", ["first", "paces", "one all seen"])
def test_recycled_transitions_are_left_as_they_are(
    drafter: EngineDrafter, course: str, source: int
) -> None:
    """Some samples ask about nothing while others do."""
    compare(drafter, round_after(*ROUNDS[course], guided=True), source=source)


@pytest.mark.parametrize("drafts", [1, 2])
@pytest.mark.parametrize("course", ["first", "paces"])
def test_windows_may_be_narrower_than_the_graph(
    drafter: EngineDrafter, course: str, drafts: int
) -> None:
    at = round_after(*ROUNDS[course])
    draft = compare(drafter, at, drafts)
    assert draft.calls == (drafts if drafter.sweeps is None else min(drafter.sweeps, drafts))
    wide = at.draft(drafter, noise_of(W - 1), drafter.sweeps)
    narrow = at.draft(drafter, noise_of(W - 1)[:, :drafts].contiguous(), drafter.sweeps)
    close(narrow.means, wide.means[:, :drafts])


@pytest.mark.parametrize("length", [[1, 4, 3], [2, 1, 1], [4, 2, 1]])
@pytest.mark.parametrize("source", [DRAFTER, RESPONSE], ids=["drafter", "response"])
def test_samples_draft_to_their_own_length(
    drafter: EngineDrafter, length: list[int], source: int
) -> None:
    compare(drafter, round_after(*ROUNDS["paces"]), length=length, source=source)


def test_the_end_of_the_trajectory(drafter: EngineDrafter) -> None:
    """Where sigma is 0, and where the window reaches past the last transition."""
    at = round_after([4, 3, 2], [4, 1, 2], guided=True, k=(17, 18, 19))
    compare(drafter, at, length=[3, 2, 1])


def test_nothing_asked_is_nothing_called(drafter: EngineDrafter) -> None:
    """With every transition recycled no graph is needed; here there is none to call."""
    silent = EngineDrafter({}, TEACHER.config, W, drafter.sweeps)
    at = round_after(*ROUNDS["all seen"])
    assert at.draft(silent, noise_of(W - 1), drafter.sweeps, source=REUSE).calls == 0
    with pytest.raises(ValueError, match="engine must have the graph draft for this"):
        at.draft(silent, noise_of(W - 1), drafter.sweeps)


@pytest.mark.parametrize("source", [DRAFTER, RESPONSE, REUSE])
def test_a_mean_never_sees_its_own_or_later_noise(drafter: EngineDrafter, source: int) -> None:
    at, noise = round_after(*ROUNDS["paces"], guided=True), noise_of(W - 1)
    means = at.draft(drafter, noise, drafter.sweeps, source=source).means
    for j in range(W - 1):
        other = noise.clone()
        other[:, j:] = torch.randn(B, W - 1 - j, *TEACHER.sample_shape)
        changed = at.draft(drafter, other, drafter.sweeps, source=source).means
        torch.testing.assert_close(changed[:, : j + 1], means[:, : j + 1], rtol=0, atol=0)
        if j < W - 2:
            assert (changed[:, j + 1] - means[:, j + 1]).abs().max() > 1e-3


def test_nan_stays_in_later_transitions_and_in_its_sample(drafter: EngineDrafter) -> None:
    """Of the graph itself: not even a product with zero reaches back."""
    seen: list[dict[str, Tensor]] = []

    class Spy:
        def __init__(self, session: Any) -> None:
            self.contract, self.device, self.session = session.contract, session.device, session

        def run(self, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
            seen.append(inputs)
            return self.session.run(inputs)

    session = drafter.sessions["draft"]
    spied = EngineDrafter({"draft": Spy(session)}, TEACHER.config, W, drafter.sweeps)
    round_after(*ROUNDS["paces"]).draft(spied, noise_of(W - 1), drafter.sweeps)
    expected = session.run(seen[0])["means"]
    for j in range(W - 1):
        noise = seen[0]["noise"].clone()
        noise[1, j:] = torch.nan
        means = session.run({**seen[0], "noise": noise})["means"]
        torch.testing.assert_close(means[[0, 2]], expected[[0, 2]], rtol=0, atol=0)
        torch.testing.assert_close(means[1, : j + 1], expected[1, : j + 1], rtol=0, atol=0)
        assert means[1, j + 1 :].isnan().all()


@pytest.mark.parametrize(("source", "comparing"), [(CONTROL_VARIATE, False), (RESPONSE, True)])
def test_what_needs_single_steps_gets_them(source: int, comparing: bool) -> None:
    at, noise = round_after(*ROUNDS["paces"], guided=True), noise_of(W - 1)
    options = {"source": source, "compare": comparing}
    for sweeps in (None, 2):
        whole = engine(sweeps)[1]
        steps = {name: s for name, s in whole.sessions.items() if name.startswith("drafter")}
        drafter = EngineDrafter(steps, TEACHER.config, W, sweeps)
        got, expected = (at.draft(d, noise, sweeps, **options) for d in (drafter, TORCH_DRAFTER))
        close(got.means, expected.means)
        assert (got.candidates is not None) == comparing
        if got.candidates is not None and expected.candidates is not None:
            close(got.candidates, expected.candidates)


def test_other_windows_are_drafted_step_by_step() -> None:
    """Wider ones, and other ways to draft than the graph's, as far as the step's graph goes."""
    drafter = engine(2)[1]
    assert drafts_windows(drafter)
    assert [drafter.drafts(width, 2) for width in (2, W, W + 1)] == [True, True, False]
    assert not drafter.drafts(W, None)
    assert not drafter.drafts(W, 1)
    at, noise = round_after(*ROUNDS["paces"]), noise_of(W - 1)
    for sweeps in (None, 1):
        got, expected = (at.draft(d, noise, sweeps) for d in (drafter, TORCH_DRAFTER))
        close(got.means, expected.means)
        assert got.calls == expected.calls


@pytest.mark.parametrize("poison", ["feature", "x"])
def test_a_drafter_that_is_not_finite_is_named(drafter: EngineDrafter, poison: str) -> None:
    at = round_after(*ROUNDS["first"])
    if poison == "feature":
        feature = at.past.rows.feature
        assert feature is not None
        feature[1] = torch.nan
    else:
        at.x[1] = torch.inf
    with pytest.raises(FloatingPointError, match=r"drafter returned a non-finite .* sample \[1\]"):
        at.draft(drafter, noise_of(W - 1), drafter.sweeps)


def test_low_precision_features_are_taken(drafter: EngineDrafter) -> None:
    """A teacher on torch may run in bfloat16; graphs take float32."""
    at = round_after(*ROUNDS["paces"])
    assert at.past.rows.feature is not None
    rows = at.past.rows._replace(feature=at.past.rows.feature.bfloat16())
    low = at._replace(past=at.past._replace(rows=rows))
    compare(drafter, low)
    step = engine(drafter.sweeps)[1]
    got = low.draft(step, noise_of(W - 1), drafter.sweeps, source=CONTROL_VARIATE)
    expected = low.draft(TORCH_DRAFTER, noise_of(W - 1), drafter.sweeps, source=CONTROL_VARIATE)
    close(got.means, expected.means)


def test_teachers_are_the_networks() -> None:
    teacher = engine(1)[0]
    x, t, y = (
        torch.randn(5, *TEACHER.sample_shape),
        torch.arange(0, 1000, 200),
        torch.arange(11, 16),
    )
    with torch.no_grad():
        expected = {None: TEACHER(x, t, y), GUIDANCE: GuidedTeacher(TEACHER, GUIDANCE)(x, t, y)}
    calls: dict[Guidance | None, Callable[..., Any]] = {
        None: teacher,
        GUIDANCE: teacher.guided(GUIDANCE),
    }
    for guidance, call in calls.items():
        for got, wanted in zip(call(x, t, y), expected[guidance], strict=True):
            close(got, wanted)
    assert (teacher.null_label, teacher.num_classes) == (15, 15)
    assert teacher.sample_shape == (2, 4, 4)


def test_guidance_is_a_scale_for_each_channel() -> None:
    cpu = torch.device("cpu")
    assert guidance_scale(Guidance(2.5, 3, 0), 4, cpu).tolist() == [2.5, 2.5, 2.5, 1.0]
    assert guidance_scale(Guidance(2.5, None, 0), 2, cpu).tolist() == [2.5, 2.5]
    with pytest.raises(ValueError, match="cfg_channels must be at most the 2 of a state, got 3"):
        guidance_scale(Guidance(2.5, 3, 0), 2, cpu)


def test_graphs_that_were_not_exported_are_named() -> None:
    at = round_after(*ROUNDS["first"], guided=True)
    teacher, drafter = torch_engine(TEACHER, TORCH_DRAFTER, W, 1, B, guidance=(False,))
    with pytest.raises(
        ValueError,
        match="have the graph teacher_guided for this, got teacher: export with --guidance both",
    ):
        teacher.guided(GUIDANCE)(at.x, at.k, at.y)
    with pytest.raises(
        ValueError, match="must have the graph draft_guided for this, got teacher, drafter, draft:"
    ):
        at.draft(drafter, noise_of(W - 1), 1)
    only_guided, _ = torch_engine(TEACHER, None, W, guidance=(True,))
    with pytest.raises(
        ValueError, match="must have the graph teacher for this, got teacher_guided: export with"
    ):
        only_guided(at.x, at.k, at.y)
