"""What the loop does with observations and chunks, and which law the chunks have.

The law is tested at two fixed observations, 5,000 chunks of each, mixed in one batch: KS on all
numbers of a chunk and 16 directions, and the energy distance. Fewer steps must fail. The planted
mistake is the one that
conditions invite: they are looked up by place in the call, not by request.
"""

import numpy as np
import pytest
import torch
from torch import Tensor

import free
from examples.policy.act import ConditionedTeacher, Policy
from examples.policy.law import draw, p_of
from examples.policy.networks import Denoiser
from examples.policy.sampler import ddim, noise_levels, schedule_of, scheduler_config
from tests.law.stats import energy_test

#: What a pilot sees early and midway.
PLACES = torch.tensor(
    [
        [[0.0, 1.4, 0.2, -0.1, 0.0, 0.0, 0.0, 0.0]] * 2,
        [[-0.2, 0.6, 0.1, -0.4, 0.1, 0.0, 0.0, 0.0]] * 2,
    ]
)
CHUNKS = 5000


@pytest.fixture(scope="module")
def plain_chunks(trained: dict[str, Denoiser]) -> Tensor:
    """[places, chunks, numbers] of the plain sampler."""
    network = trained["mlp"]
    return draw(Policy(network, network.config), PLACES, CHUNKS, 0, batch=2 * CHUNKS)


def test_speculated_chunks_have_the_plain_law(
    trained: dict[str, Denoiser], plain_chunks: Tensor
) -> None:
    network = trained["mlp"]
    policy = Policy(network, network.config, window=6)
    chunks = draw(policy, PLACES, CHUNKS, 2 * CHUNKS, batch=2 * CHUNKS)
    assert policy.report is not None
    assert 0.2 < policy.report.accepted / sum(policy.report.examined_by_step) < 0.98
    for mine, plain in zip(chunks, plain_chunks, strict=True):
        assert p_of(mine, plain) > 1e-4
    assert energy_test(chunks[1], plain_chunks[1]) > 1e-4


def test_a_law_that_is_another_is_seen(
    trained: dict[str, Denoiser], plain_chunks: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = trained["mlp"]
    fewer = Policy(network, network.config, steps=4)
    chunks = draw(fewer, PLACES, CHUNKS, 4 * CHUNKS, batch=2 * CHUNKS)
    assert max(p_of(a, b) for a, b in zip(chunks, plain_chunks, strict=True)) < 1e-6

    def by_place(self: ConditionedTeacher, x: Tensor, t: Tensor, y: Tensor) -> free.TeacherOutput:
        place = torch.arange(len(x)) * len(self.conditions) // len(x)
        return free.TeacherOutput(self.denoise(x, t, self.conditions[place]))

    monkeypatch.setattr(ConditionedTeacher, "__call__", by_place)
    policy = Policy(network, network.config, window=6)
    chunks = draw(policy, PLACES, CHUNKS, 2 * CHUNKS, batch=2 * CHUNKS)
    assert max(p_of(a, b) for a, b in zip(chunks, plain_chunks, strict=True)) < 1e-6


def test_the_loop_asks_for_a_chunk_when_the_last_is_flown(trained: dict[str, Denoiser]) -> None:
    network = trained["mlp"]
    asked: list[Tensor] = []

    def denoise(x: Tensor, t: Tensor, observations: Tensor) -> Tensor:
        asked.append(observations)
        return network(x, t, observations)

    policy = Policy(denoise, network.config, steps=5, seed=3)
    seen = [np.full(8, number, dtype=np.float32) for number in range(7)]
    actions = [policy.act(observation) for observation in seen]
    # Chunks of three: at the first, the fourth and the seventh, with the observation before.
    assert [rows[0, :, 0].tolist() for rows in asked[::5]] == [[0, 0], [2, 3], [5, 6]]
    assert policy.report is not None
    assert policy.report.seeds == [5]
    policy.reset(3)
    again = [policy.act(observation) for observation in seen]
    np.testing.assert_array_equal(actions, again)
    chunk = policy.plan(torch.zeros(1, 2, 8), [3])[0].numpy()
    np.testing.assert_array_equal(actions[:3], chunk[:3])


def test_a_chunk_depends_on_its_own_observation_and_seed(trained: dict[str, Denoiser]) -> None:
    network = trained["mlp"]
    policy = Policy(network, network.config, window=4)
    together = policy.plan(PLACES, [5, 6])
    alone = torch.cat([policy.plan(PLACES[i : i + 1], [5 + i]) for i in range(2)])
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-4)


def test_levels_and_ddim_are_diffusers(trained: dict[str, Denoiser]) -> None:
    diffusers = pytest.importorskip("diffusers")
    network, seen, config = trained["mlp"], PLACES, scheduler_config(12)
    config = {k: v for k, v in config.items() if k not in ("_class_name", "variance_type")}
    scheduler = diffusers.DDIMScheduler(**config)
    clean, noise = torch.ones(12, 1), torch.full((12, 1), 0.5)
    signal, spread = noise_levels(12)
    noisy = scheduler.add_noise(clean, noise, torch.arange(12))
    torch.testing.assert_close(signal[:, None] * clean + spread[:, None] * noise, noisy)
    scheduler.set_timesteps(6)
    noise = torch.randn(2, 4, 2, generator=torch.Generator().manual_seed(0))
    x = noise
    for t in scheduler.timesteps:
        eps = network(x, t.expand(2), seen)
        x = scheduler.step(eps, t, x).prev_sample
    torch.testing.assert_close(
        ddim(network, noise, seen, schedule_of(12, 6), torch.Generator()), x, rtol=1e-4, atol=1e-4
    )


def test_the_loop_by_hand_has_the_law(trained: dict[str, Denoiser], plain_chunks: Tensor) -> None:
    network = trained["mlp"]
    by_hand = Policy(network, network.config, law="ddpm by hand")
    chunks = draw(by_hand, PLACES, CHUNKS, 6 * CHUNKS, batch=2 * CHUNKS)
    assert min(p_of(a, b) for a, b in zip(chunks, plain_chunks, strict=True)) > 1e-4


def test_loops_by_hand_are_not_speculated(trained: dict[str, Denoiser]) -> None:
    network = trained["mlp"]
    with pytest.raises(ValueError, match="window must be None with law 'ddim', got 4"):
        Policy(network, network.config, law="ddim", window=4)
    with pytest.raises(ValueError, match="law must be one of ddpm, ddim, ddpm by hand, got 'eu"):
        Policy(network, network.config, law="euler")
