"""Trajectories: every state, and the log-density of every transition under the teacher's law."""

import copy
import dataclasses
import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import free.rounds.trajectory
from free import Relaxation, Schedule, SequentialSampler, SpeculativeSampler, Trajectory
from free.rounds.state import Outcome
from free.rounds.trajectory import Transitions, committed_transitions, log_density
from free.schedule.clipping import Clipping
from tests.law.stats import ks_two_sample
from tests.networks import CallableDrafter, MixtureTeacher

TEACHER = MixtureTeacher(4)
POOR = CallableDrafter(MixtureTeacher(4, shift=0.15))
STEPS = 20
SCHEDULE = Schedule.ddpm(STEPS)
LABELS, SEED = [0, 1, 2, 1, 0], 7


def of_image(history: float = 0.0, **options: Any) -> Schedule:
    """DDPM's law in terms of x0, of which a share comes from the transition before."""
    s, last = SCHEDULE, SCHEDULE.sigma > 0
    b = -s.b * s.signal / s.noise
    c = np.where(last, history * b, 0.0)
    c[0] = 0.0
    image = np.stack([1 / s.signal, -s.noise / s.signal])
    return dataclasses.replace(s, a=s.a + s.b / s.noise, b=b - c, c=c, image=image, **options)


def weight(x: Tensor, t: Tensor) -> Tensor:
    """Where the variance lies at a state."""
    return torch.sigmoid(x[:, 0])


LAWS = {
    "ddpm": SCHEDULE,
    "clipped": of_image(clipping=Clipping(0.6)),
    "thresholded": of_image(clipping=Clipping(1.5, 0.7)),
    "history": of_image(-0.5, clipping=Clipping(1.5)),
    "interval": dataclasses.replace(SCHEDULE, guided=np.arange(STEPS) % 2.0),
    "mixture": Schedule.ddpm(STEPS, variance=weight),
}


def make(
    law: str = "ddpm", window: int | str = 4, drafter: Any = POOR, **options: Any
) -> SpeculativeSampler:
    return SpeculativeSampler(TEACHER, drafter, LAWS[law], window, **options)


def recomputed(states: Tensor, y: Tensor, s: Schedule, scale: float = 1.0) -> Tensor:
    """Log-densities [B, N] by the plain teacher, transition by transition, from the formulas."""
    found, before, null = [], torch.zeros(()), torch.full_like(y, TEACHER.null_label)
    for k, time in enumerate(s.timesteps):
        x, t = states[:, k], torch.full_like(y, int(time))
        eps, share = TEACHER(x, t, y).eps, 1.0 if s.guided is None else s.guided[k]
        unguided = TEACHER(x, t, null).eps
        eps = unguided + (1 + share * (scale - 1)) * (eps - unguided) if scale != 1 else eps
        told = eps.double()
        if s.image is not None:
            told = s.image[0, k] * x.double() + s.image[1, k] * told
            told = told if s.clipping is None else s.clipping(told)
        mean = s.a[k] * x.double() + s.b[k] * told + (0.0 if s.c is None else s.c[k] * before)
        before, sigma = told, torch.full((len(y),), s.sigma[k], dtype=torch.float64)
        if s.sigma[k] == 0:
            found.append(0 * sigma)
            continue
        if s.mixture is not None:
            w = s.mixture(x, t).double()
            sigma = sigma ** (1 - w) * s.upper[k] ** w
        normal = torch.distributions.Normal(mean, sigma[:, None])
        found.append(normal.log_prob(states[:, k + 1].double()).sum(1))
    return torch.stack(found, 1)


def require_recomputed(path: Trajectory, law: str, y: Tensor, scale: float = 1.0) -> None:
    expected = recomputed(path.states, y, LAWS[law], scale)
    torch.testing.assert_close(path.log_density.sum(1), expected.sum(1), rtol=1e-4, atol=0)
    torch.testing.assert_close(path.log_density, expected, rtol=1e-4, atol=1e-3)


# --- the chain's density --------------------------------------------------------------------------


@pytest.mark.parametrize("law", LAWS)
def test_densities_are_those_the_plain_teacher_gives_the_states(law: str) -> None:
    """Also by the other verifier, in sweeps, and where windows are chosen."""
    y = torch.tensor(LABELS)
    settings: list[dict[str, Any]] = [
        {"window": 1},
        {"window": 4, "cfg_scale": 1.5},
        {"window": 4, "recycle": True, "sweeps": 1},
        {"window": 16, "recycle": True, "cfg_scale": 1.5},
        {"window": 16, "verifier": "block", "sweeps": 2},
    ]
    if law == "history":
        settings.append({"window": "auto", "recycle": True, "sweeps": 1})
    for options in settings:
        made = make(law, **options).sample(y, SEED, trajectory=True)
        path, scale = made.trajectory, options.get("cfg_scale", 1.0)
        assert path is not None
        assert torch.equal(path.states[:, -1], made.samples)
        require_recomputed(path, law, y, scale)
    plain = SequentialSampler(TEACHER, LAWS[law], 1.5).sample(y, SEED, trajectory=True)
    assert plain.trajectory is not None
    require_recomputed(plain.trajectory, law, y, 1.5)


def of_draft(outcome: Outcome) -> Transitions:
    """Mistake: the mean that a transition was drafted around."""
    made, draft = committed_transitions(outcome), outcome.window.draft
    i = made.k - draft.k[made.sample, 0]
    drafted = i < draft.means.shape[1]
    mean = made.mean.clone()
    mean[drafted] = draft.means[made.sample[drafted], i[drafted]]
    return made._replace(mean=mean)


def of_rejected(outcome: Outcome) -> Transitions:
    """Mistake: the density of the draft that fell, not of what stands in its place."""
    made, draft = committed_transitions(outcome), outcome.window.draft
    i = made.k - draft.k[made.sample, 0] + 1
    drafted = i < outcome.window.length[made.sample]
    state = made.next_state.clone()
    state[drafted] = draft.states[made.sample[drafted], i[drafted]]
    return made._replace(next_state=state)


def of_row_before(outcome: Outcome) -> Transitions:
    """Mistake: the target's mean of the row before."""
    means = outcome.means.roll(1, 1) if outcome.means.shape[1] > 1 else outcome.means
    return committed_transitions(outcome._replace(means=means))


PLANTED = [of_draft, of_rejected, of_row_before]


def plant(monkeypatch: pytest.MonkeyPatch, mistake: Callable[[Outcome], Transitions]) -> None:
    monkeypatch.setattr(free.rounds.trajectory, "committed_transitions", mistake)


@pytest.mark.parametrize("mistake", PLANTED)
def test_a_wrong_density_is_found(
    monkeypatch: pytest.MonkeyPatch, mistake: Callable[[Outcome], Transitions]
) -> None:
    plant(monkeypatch, mistake)
    path = make().sample(LABELS, SEED, trajectory=True).trajectory
    assert path is not None
    with pytest.raises(AssertionError):
        require_recomputed(path, "ddpm", torch.tensor(LABELS))


# --- its law --------------------------------------------------------------------------------------

RUNS = 4000


def sums(sampler: Any, seed: int) -> Tensor:
    return sampler.sample([1] * RUNS, seed, trajectory=True).trajectory.log_density.sum(1)


@pytest.fixture(scope="module")
def plain() -> Tensor:
    return sums(SequentialSampler(TEACHER, SCHEDULE), 0)


@pytest.mark.parametrize("options", [{"window": 4}, {"window": 16, "recycle": True, "sweeps": 1}])
def test_a_trajectorys_density_has_one_law_however_it_is_drawn(
    plain: Tensor, options: dict[str, Any]
) -> None:
    """Two-sample KS, 4,000 chains each of 19 noisy transitions in 4 dimensions. Of two Gaussians, a
    shift of .12 standard deviations (.7 nats of the sum) has p < 1e-3 in 89 % of the runs.
    """
    assert ks_two_sample(plain, sums(make(**options), RUNS)) > 1e-3


@pytest.mark.parametrize("mistake", PLANTED)
def test_a_wrong_density_has_another_law(
    plain: Tensor, monkeypatch: pytest.MonkeyPatch, mistake: Callable[[Outcome], Transitions]
) -> None:
    plant(monkeypatch, mistake)
    assert ks_two_sample(plain, sums(make(), RUNS)) < 1e-8


# --- states ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["speculative", "sequential"])
def test_states_are_those_that_the_run_went_through(kind: str) -> None:
    """From its noise to its samples, at each sample's own pace, and nothing else is drawn."""
    own = make(recycle=True, sweeps=1)
    sampler = own if kind == "speculative" else SequentialSampler(TEACHER, SCHEDULE)
    seen: list[Tensor] = []
    observe = lambda made, x: seen.append(x)  # noqa: E731
    result = sampler.sample(LABELS, SEED, observer=observe, trajectory=True)
    path, rounds = result.trajectory, result.report.rounds_by_sample
    assert path is not None
    assert torch.equal(path.states[:, 0], own.begin(LABELS, SEED)[1].x)
    assert torch.equal(path.states[:, -1], result.samples)
    assert torch.equal(sampler.sample(LABELS, SEED).samples, result.samples)
    for sample, states in enumerate(path.states):
        places = [int((states == x[sample]).all(1).nonzero()) for x in seen]
        assert places == sorted(places)
        assert len(set(places)) == rounds[sample]
    assert kind == "sequential" or len(set(rounds)) > 1
    assert path.timesteps.tolist() == SCHEDULE.timesteps.tolist()
    assert torch.equal(path.sigma, torch.tensor(SCHEDULE.sigma).float().expand(5, -1))
    assert (path.log_density[:, -1] == 0).all()  # without noise
    assert torch.equal(path.mean_log_density, path.log_density / 4)


def test_transitions_of_ones_own_loop() -> None:
    """Each once and in turn, where samples skip rounds and leave."""
    rounds, samples = make(drafter="frozen", recycle=True, sweeps=1).begin(LABELS, SEED)
    at, made = samples.x.clone(), torch.zeros(5, dtype=torch.int64)
    states, density = at.new_empty(5, STEPS + 1, 4), torch.zeros(5, STEPS, dtype=torch.float64)
    states[:, 0] = at
    generator = torch.Generator().manual_seed(0)
    skipped = 0
    while len(samples.k):
        wanted = torch.randint(0, 5, samples.k.shape, generator=generator)
        window = rounds.draft(samples, wanted.minimum(STEPS - samples.k))
        outcome = rounds.verify(samples, window, TEACHER(window.x, window.t, window.y))
        steps = committed_transitions(outcome)
        skipped += int((window.wanted == 0).sum())
        for p, b in enumerate(samples.number[steps.sample]):
            assert torch.equal(steps.state[p], at[b])
            assert steps.k[p] == made[b]
            at[b], made[b] = steps.next_state[p], made[b] + 1
        states[samples.number[steps.sample], steps.k + 1] = steps.next_state
        density[samples.number[steps.sample], steps.k] = steps.log_density
        samples = rounds.advance(samples, outcome)
        assert torch.equal(samples.x, at[samples.number])
        samples = samples.keep(samples.k < STEPS)
    assert skipped > 0
    assert (made == STEPS).all()
    path = Trajectory(states, density, density, torch.tensor(SCHEDULE.timesteps))
    require_recomputed(path, "ddpm", torch.tensor(LABELS))


def test_float_timesteps_stay_so() -> None:
    schedule = dataclasses.replace(SCHEDULE, timesteps=SCHEDULE.timesteps + 0.25)

    def teacher(x: Tensor, t: Tensor, y: Tensor) -> Any:
        return TEACHER(x, t.long(), y)

    made = SequentialSampler(teacher, schedule).sample([0], shape=(4,), trajectory=True)
    assert made.trajectory is not None
    assert made.trajectory.timesteps.tolist() == schedule.timesteps.tolist()


def test_log_densities_can_be_differentiated() -> None:
    mean = torch.zeros(3, 2, 2, requires_grad=True)
    x, sigma = torch.ones(3, 2, 2), torch.tensor([0.5, 2.0, 0.0])
    density = log_density(x, mean, sigma)
    density.sum().backward()
    expected = torch.distributions.Normal(0.0, sigma[:2, None].double()).log_prob(torch.tensor(1.0))
    torch.testing.assert_close(density[:2], 4 * expected[:, 0])
    assert density[2] == 0
    assert torch.equal(mean.grad[:, 0, 0], torch.tensor([4.0, 0.25, 0.0]))


# --- what is asked for, and what it takes ---------------------------------------------------------


def test_it_takes_what_is_documented_and_nothing_unasked(monkeypatch: pytest.MonkeyPatch) -> None:
    for kept in (True, "device", "cpu"):
        path = make(window=16).sample(LABELS, SEED, trajectory=kept).trajectory
        assert path is not None
        size = [tensor.untyped_storage().nbytes() for tensor in path]
        assert size == [4 * 5 * (STEPS + 1) * 4, 8 * 5 * STEPS, 4 * 5 * STEPS, 8 * STEPS]
        assert [part.dtype for part in path[:3]] == [torch.float32, torch.float64, torch.float32]
    monkeypatch.delattr(free.rounds.trajectory, "committed_transitions")
    for sampler in (make(), SequentialSampler(TEACHER, SCHEDULE)):
        assert sampler.sample(LABELS, SEED).trajectory is None


def test_a_result_is_a_pair_whatever_was_kept() -> None:
    result = make().sample(LABELS, SEED, trajectory=True)
    samples, report = result
    assert samples is result.samples
    assert report is result.report
    for other in (copy.deepcopy(result), pickle.loads(pickle.dumps(result))):
        assert torch.equal(other.trajectory.states, result.trajectory.states)
        assert torch.equal(other.samples, samples)


@pytest.mark.parametrize("asked", [None, 1, "cuda", "", ["cpu"]])
def test_what_is_no_place_is_refused(asked: Any) -> None:
    message = r"^trajectory must be True, False, 'cpu' or 'device', got "
    for sampler in (make(), SequentialSampler(TEACHER, SCHEDULE)):
        with pytest.raises(ValueError, match=message):
            sampler.sample(LABELS, trajectory=asked)


def test_there_is_none_of_a_relaxed_run() -> None:
    relaxed = make(relaxation=Relaxation("allow", 0.3))
    with pytest.raises(
        ValueError, match=r"^trajectory must be False with a relaxation.* got 'cpu'"
    ):
        relaxed.sample(LABELS, trajectory="cpu")
    assert relaxed.sample(LABELS).trajectory is None
