"""What a drafter is shown in training is what it is shown when it drafts."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from free import DiT, DiTConfig, DrafterNet, FeatureDrafter
from free.drafters import DraftingBatch
from free.drafters.feature import evaluate
from free.models.guidance import Guidance, GuidedTeacher
from free.models.output import TeacherRows
from free.rounds.draft import draft_window
from free.rounds.state import Draft, Evidence, recycle
from free.training import rollout as module
from free.training.rollout import Drafts, Rollout, in_turn, prediction_of, sweep
from tests.networks import randomized

CONFIG = DiTConfig(8, 4, 1, 16, 2, 2, num_classes=3, learn_sigma=False)
TEACHER, NETWORK = randomized(DiT(CONFIG)), randomized(DrafterNet(CONFIG, 2), 1)
PREDICTION = prediction_of(30, torch.device("cpu"))
TABLE = PREDICTION.table
R, P = 3, 5
K, Y = torch.tensor([2, 11, 20]), torch.tensor([0, 2, 3])
GUIDED = pytest.mark.parametrize(
    "guidance", [None, Guidance(1.5, None, CONFIG.num_classes)], ids=["plain", "guided"]
)


def _inputs() -> tuple[Tensor, Tensor]:
    """States of the first pass, and the noises of it, the window, and its last draft."""
    generator = torch.Generator().manual_seed(3)
    x = torch.randn(R, 1, 8, 8, generator=generator)
    return x, torch.randn(R, P + 1, 1, 8, 8, generator=generator)


def _rollout(guidance: Guidance | None, k: Tensor = K, rows: int = R) -> Rollout:
    x, noise, some = *_inputs(), slice(rows)
    return Rollout(
        NETWORK, TEACHER, PREDICTION, guidance, x=x[some], k=k[some], y=Y[some],
        noise=noise[some, :P],
    )  # fmt: skip


def _draft_window(guidance: Guidance | None, sweeps: int | None) -> Draft:
    """The window as the sampler drafts it, after a plain transition."""
    x, noise = _inputs()
    drafter, prediction = FeatureDrafter(NETWORK, TEACHER), PREDICTION
    drafter.begin(DraftingBatch(TABLE, guidance))
    teacher = TEACHER if guidance is None else GuidedTeacher(TEACHER, guidance)
    out = teacher(x, TABLE.timesteps[K], Y)
    following = TABLE.mean(K, x, out.eps) + TABLE.sigma[K].view(-1, 1, 1, 1) * noise[:, 0]
    one = torch.ones(R, dtype=torch.int32)
    guess = prediction.from_eps(K, x, out.eps)
    past = recycle(TeacherRows(*out, x, K), guess, one, one, P + 1, discarded=False)
    return draft_window(
        drafter, prediction, following, K + 1, Y, past, noise[:, 1:].contiguous(), (P + 1) * one,
        sweeps, torch.zeros(R, dtype=torch.int64), Evidence.none(R, x.device), False,
    )  # fmt: skip


def _recorded(make: Any) -> tuple[list[tuple[Tensor, ...]], Any]:
    """What the drafter's network is given while ``make`` runs, and its result."""
    calls: list[tuple[Tensor, ...]] = []
    hook = NETWORK.register_forward_pre_hook(lambda _, arguments: calls.append(arguments))
    try:
        return calls, make()
    finally:
        hook.remove()


def _drafts(guidance: Guidance | None, sweeps: int | None) -> Drafts:
    rollout = _rollout(guidance)
    return in_turn(rollout) if sweeps is None else sweep(rollout, sweeps)


def _agree(guidance: Guidance | None, sweeps: int | None) -> None:
    shown, drafts = _recorded(lambda: _drafts(guidance, sweeps))
    asked, drafted = _recorded(lambda: _draft_window(guidance, sweeps))
    assert len(shown) == len(asked) == (sweeps or P)
    for ours, samplers in zip(shown, asked, strict=True):
        for one, other in zip(ours, samplers, strict=True):
            torch.testing.assert_close(one, other, rtol=2e-3, atol=2e-3)
    torch.testing.assert_close(drafts.states, drafted.states[:, :P], rtol=1e-3, atol=1e-3)
    k = (K[:, None] + 1 + torch.arange(P)).flatten()
    means = PREDICTION.mean(k, drafts.states.flatten(0, 1), drafts.image.flatten(0, 1))
    torch.testing.assert_close(means.view_as(drafted.means), drafted.means, rtol=1e-3, atol=1e-3)


@GUIDED
@pytest.mark.parametrize("sweeps", [None, 1, 2, P])
def test_it_is_fed_as_when_it_drafts(guidance: Guidance | None, sweeps: int | None) -> None:
    _agree(guidance, sweeps)


@pytest.mark.parametrize("bug", ["noise", "feature", "states"])
def test_a_wrong_input_is_noticed(bug: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if bug == "states":  # they stay where the first guess had them
        monkeypatch.setattr(Rollout, "roll", lambda self, image, roll=Rollout.roll: roll(
            self, self.image[:, None].expand_as(image)
        ))  # fmt: skip
    else:  # the noise of the transition itself, or the feature of another
        name = {"noise": "innovation", "feature": "feature"}[bug]

        def wrong(*networks: Any, **rows: Any) -> Any:
            return evaluate(*networks, **rows | {name: rows[name].roll(-1, 0)})

        monkeypatch.setattr(module, "evaluate", wrong)
    with pytest.raises(AssertionError, match="Tensor-likes are not close"):
        _agree(None, 2)


WAYS = pytest.mark.parametrize(
    "draft",
    [lambda rollout: in_turn(rollout, follow_teacher=True), in_turn, lambda r: sweep(r, 2)],
    ids=["teacher", "own", "sweeps"],
)


@WAYS
@GUIDED
def test_targets_are_the_teachers_at_the_drafted_states(draft: Any, guidance: Any) -> None:
    drafts = draft(_rollout(guidance))
    teacher = TEACHER if guidance is None else GuidedTeacher(TEACHER, guidance)
    for j in range(P):
        out = teacher(drafts.states[:, j], TABLE.timesteps[K + 1 + j], Y)
        torch.testing.assert_close(drafts.target_eps[:, j], out.eps, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(drafts.target_feature[:, j], out.feature, rtol=1e-4, atol=1e-4)


def test_following_the_teacher() -> None:
    """States by the teacher's means, features by the drafter."""
    calls, drafts = _recorded(lambda: in_turn(_rollout(None), follow_teacher=True))
    _, noise = _inputs()
    for j in range(1, P):
        k, x = K + j, drafts.states[:, j - 1]
        mean = TABLE.mean(k, x, drafts.target_eps[:, j - 1])
        following = mean + TABLE.sigma[k].view(-1, 1, 1, 1) * noise[:, j]
        torch.testing.assert_close(drafts.states[:, j], following, rtol=1e-3, atol=1e-3)
        assert torch.equal(calls[j][4], drafts.feature[:, j - 1])
        assert torch.equal(drafts.previous[:, j], drafts.feature[:, j - 1])
        assert torch.equal(calls[j][1], noise[:, j])


@WAYS
@pytest.mark.parametrize("rows", [R, 1])
def test_gradients_go_through_guesses_and_not_through_states(draft: Any, rows: int) -> None:
    """The networks' inputs are not overwritten while the window is rolled on."""
    NETWORK.requires_grad_(True)
    try:
        drafts = draft(_rollout(None, rows=rows))
        assert not drafts.states.requires_grad
        assert not drafts.target_eps.requires_grad
        (drafts.image.square().mean() + drafts.feature.square().mean()).backward()
        assert all(weight.grad.abs().sum() > 0 for weight in NETWORK.parameters())
    finally:
        NETWORK.requires_grad_(False).zero_grad()


def test_the_last_transition_is_not_drafted() -> None:
    rollout = _rollout(None, torch.tensor([22, 25, 27]))
    assert rollout.k.tolist()[1:] == [[26, 27, 28, 28, 28], [28] * 5]
    assert rollout.real.sum(1).tolist() == [5, 3, 1]
    assert torch.isfinite(in_turn(rollout).image).all()
    assert torch.isfinite(sweep(rollout, 2).image).all()
