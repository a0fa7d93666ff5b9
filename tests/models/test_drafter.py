"""The drafter's network and its adapter to the sampler."""

import dataclasses

import numpy as np
import pytest
import torch

from free import DiT, DiTConfig, DrafterNet, FeatureDrafter, Schedule
from free.drafters import DraftingBatch
from free.models.guidance import Guidance, GuidedTeacher
from free.models.output import TeacherRows
from free.schedule.table import Table, eps_from_image, image_from_eps
from tests.networks import randomized

CONFIG = DiTConfig(8, 4, 2, 16, 2, 2, num_classes=5)
TABLE = Table.of(Schedule.ddpm(20), "cpu")


@pytest.fixture
def teacher() -> DiT:
    return randomized(DiT(CONFIG))


@pytest.fixture
def drafter(teacher: DiT) -> FeatureDrafter:
    return FeatureDrafter(randomized(DrafterNet(CONFIG), seed=1), teacher)


def test_image_and_eps_are_two_views_of_one_prediction() -> None:
    x, eps = torch.randn(3, 2, 4, 4), torch.randn(3, 2, 4, 4)
    signal = torch.tensor([0.01, 0.5, 0.99])
    image = image_from_eps(x, eps, signal)
    torch.testing.assert_close(eps_from_image(x, image, signal), eps, rtol=1e-4, atol=1e-4)
    # The forward process read backwards.
    for row, s in enumerate(signal.tolist()):
        noised = s * image[row] + (1 - s * s) ** 0.5 * eps[row]
        torch.testing.assert_close(noised, x[row], rtol=1e-4, atol=1e-4)


def test_schedule_knows_its_signal() -> None:
    abar = np.cumprod(1 - np.linspace(1e-4, 2e-2, 1000))
    for options in ({}, {"variance": "upper"}, {"stochasticity": 0.5}):
        schedule = Schedule.ddpm(50, **options)
        np.testing.assert_allclose(schedule.signal, np.sqrt(abar[schedule.timesteps]), rtol=1e-9)


def test_untrained_drafter_keeps_image_and_feature(teacher: DiT) -> None:
    network = DrafterNet(CONFIG)
    network.initialize_from(teacher)
    drafter = FeatureDrafter(network, teacher)
    drafter.begin(DraftingBatch(TABLE, None))
    x, k, y = torch.randn(3, 2, 8, 8), torch.tensor([3, 0, 17]), torch.tensor([0, 2, 5])
    out = teacher(x, TABLE.timesteps[k], y)
    carry = drafter.carry_from(TeacherRows(*out, x, k), torch.arange(3))
    x_next = torch.randn(3, 2, 8, 8)
    eps, (feature, image, mean) = drafter.predict(x_next, k + 1, y, carry)
    torch.testing.assert_close(feature, out.feature)
    torch.testing.assert_close(mean, TABLE.mean(k + 1, x_next, eps))
    torch.testing.assert_close(image, image_from_eps(x, out.eps, TABLE.signal[k]))
    torch.testing.assert_close(eps, eps_from_image(x_next, image, TABLE.signal[k + 1]))


def test_drafter_sees_latent_innovation_time_label_and_feature(drafter: FeatureDrafter) -> None:
    network = drafter.network

    def inputs(t: int) -> list[torch.Tensor]:
        latent, innovation = torch.randn(2, 1, 2, 8, 8)
        return [latent, innovation, torch.tensor([t]), torch.randn(1, 16), torch.randn(1, 4, 16)]

    base = inputs(10)
    change = network(*base)[0]
    for index, other in enumerate(inputs(500)):
        altered = [other if place == index else value for place, value in enumerate(base)]
        assert (network(*altered)[0] - change).abs().max() > 1e-3


def test_guided_prediction_is_the_two_predictions_combined(
    drafter: FeatureDrafter, teacher: DiT
) -> None:
    x, k, y = torch.randn(3, 2, 8, 8), torch.tensor([4, 0, 17]), torch.tensor([1, 2, 3])
    guidance = Guidance(1.5, 1, teacher.null_label)
    t, null = TABLE.timesteps[k], torch.full_like(y, teacher.null_label)
    rows = torch.tensor([2, 0, 1])
    x_next = torch.randn(3, 2, 8, 8)

    drafter.begin(DraftingBatch(TABLE, guidance))
    out = GuidedTeacher(teacher, guidance)(x, t, y)
    assert out.feature.shape == (3, 2, 4, 16)
    carry = drafter.carry_from(TeacherRows(*out, x, k), rows)
    eps, (feature, *_) = drafter.predict(x_next, k[rows] + 1, y[rows], carry)

    drafter.begin(DraftingBatch(TABLE, None))
    alone = []
    for labels in (y, null):
        own = drafter.carry_from(TeacherRows(*teacher(x, t, labels), x, k), rows)
        # Both rows are told the innovation of the transition that was really made.
        own = own._replace(mean=carry.mean)
        alone.append(drafter.predict(x_next, k[rows] + 1, labels[rows], own))
    (cond, (cond_feature, *_)), (uncond, (uncond_feature, *_)) = alone
    expected = torch.cat([uncond[:, :1] + 1.5 * (cond - uncond)[:, :1], cond[:, 1:]], dim=1)
    torch.testing.assert_close(eps, expected, rtol=1e-4, atol=1e-3)
    torch.testing.assert_close(feature, torch.stack([cond_feature, uncond_feature], 1))


def test_innovation_is_the_noise_that_was_drawn(drafter: FeatureDrafter, teacher: DiT) -> None:
    x, k, y = torch.randn(2, 2, 8, 8), torch.tensor([4, 9]), torch.tensor([1, 2])
    drafter.begin(DraftingBatch(TABLE, None))
    carry = drafter.carry_from(
        TeacherRows(*teacher(x, TABLE.timesteps[k], y), x, k), torch.arange(2)
    )
    z = torch.randn(2, 2, 8, 8)
    seen = []
    drafter.network.register_forward_pre_hook(lambda _, arguments: seen.append(arguments[1]))
    drafter.predict(carry[2] + TABLE.sigma[k].view(-1, 1, 1, 1) * z, k + 1, y, carry)
    torch.testing.assert_close(seen[0], z, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("depth", [1, 2])
def test_depth(teacher: DiT, depth: int) -> None:
    network = DrafterNet(CONFIG, depth)
    network.initialize_from(teacher)
    assert len(network.blocks) == depth
    for own, top in zip(network.blocks, teacher.blocks[2 - depth :], strict=True):
        for weight, source in zip(own.parameters(), top.parameters(), strict=True):
            assert torch.equal(weight, source)
    # Every block is run.
    inputs = torch.randn(2, 1, 2, 8, 8), torch.tensor([7]), torch.randn(1, 16)
    inputs = (*inputs[0], *inputs[1:], torch.randn(1, 4, 16))
    randomized(network)
    change, _ = network(*inputs)
    for block in network.blocks:
        block.mlp.fc2.weight.data.zero_()
        other, _ = network(*inputs)
        assert (other - change).abs().max() > 1e-3
        change = other


def test_the_gate(teacher: DiT) -> None:
    """The change is affine in the innovation that is gated."""
    network = randomized(DrafterNet(CONFIG, gate=True))
    plain = randomized(DrafterNet(CONFIG))
    shared = {n: v for n, v in network.state_dict().items() if "final_layer.linear" not in n}
    plain.load_state_dict(shared, strict=False)
    # Outputs of a patch: the channel is the fastest axis.
    weight = network.final_layer.linear.weight.view(16, 4, 16)
    bias = network.final_layer.linear.bias.view(16, 4)
    x, z, e = torch.randn(2, 2, 8, 8), torch.randn(2, 2, 8, 8), torch.randn(2, 16)
    inputs = (x, z, torch.tensor([3, 400]), e, torch.randn(2, 4, 16))
    parts = []
    for own in (slice(0, 2), slice(2, 4)):
        plain.final_layer.linear.weight.data = weight[:, own].flatten(0, 1)
        plain.final_layer.linear.bias.data = bias[:, own].flatten()
        parts.append(plain(*inputs)[0])
    torch.testing.assert_close(network(*inputs)[0], parts[0] + parts[1] * z)
    fresh = DrafterNet(CONFIG, gate=True)
    fresh.initialize_from(teacher)
    assert not fresh(*inputs)[0].any()


@pytest.mark.parametrize("depth", [0, 3, True, 1.0])
def test_depths_that_are_refused(depth: int) -> None:
    with pytest.raises(ValueError, match=rf"depth must be an integer in 1\.\.2, .* got {depth}"):
        DrafterNet(CONFIG, depth)


def test_misuse_is_refused(drafter: FeatureDrafter, teacher: DiT) -> None:
    other = DrafterNet(dataclasses.replace(CONFIG, hidden_size=32))
    with pytest.raises(ValueError, match="network must be made for the teacher's config"):
        FeatureDrafter(other, teacher)
    nothing = TeacherRows(torch.zeros(1), None, None, torch.zeros(1), torch.zeros(1))
    with pytest.raises(ValueError, match="teacher must return a feature for this drafter"):
        drafter.carry_from(nothing, torch.tensor([0]))
    flow = Schedule([1, 0], [1.0, 1.0], [-0.5, -0.5], [0.1, 0.0])
    with pytest.raises(ValueError, match="schedule must have signal and noise > 0"):
        drafter.begin(DraftingBatch(Table.of(flow, "cpu"), None))
    with pytest.raises(RuntimeError, match="begin"):
        FeatureDrafter(drafter.network, teacher).predict(*[torch.zeros(2, 1)] * 4)
