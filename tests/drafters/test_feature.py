"""The trained drafter's adapter to the sampler."""

import dataclasses

import pytest
import torch

from free import DiT, DiTConfig, DrafterNet, FeatureDrafter, Schedule
from free.drafters import Anchored, DraftingBatch
from free.models.guidance import Guidance, GuidedTeacher
from free.models.output import TeacherRows
from free.schedule.table import Table, eps_from_image, image_from_eps
from tests.networks import randomized

CONFIG = DiTConfig(8, 4, 2, 16, 2, 2, num_classes=5)
TABLE = Table.of(Schedule.ddpm(20), "cpu")
PLAIN = DraftingBatch(TABLE, None)


@pytest.fixture
def teacher() -> DiT:
    return randomized(DiT(CONFIG))


@pytest.fixture
def drafter(teacher: DiT) -> FeatureDrafter:
    return FeatureDrafter(randomized(DrafterNet(CONFIG), seed=1), teacher)


def test_untrained_drafter_keeps_image_and_feature(teacher: DiT) -> None:
    network = DrafterNet(CONFIG)
    network.initialize_from(teacher)
    drafter = FeatureDrafter(network, teacher)
    drafter = drafter.begin(PLAIN)
    x, k, y = torch.randn(3, 2, 8, 8), torch.tensor([3, 0, 17]), torch.tensor([0, 2, 5])
    out = teacher(x, TABLE.timesteps[k], y)
    carry = drafter.carry_from(TeacherRows(*out, x, k), torch.arange(3))
    x_next = torch.randn(3, 2, 8, 8)
    eps, (feature, image, mean) = drafter.predict(x_next, k + 1, y, carry)
    torch.testing.assert_close(feature, out.feature)
    torch.testing.assert_close(mean, TABLE.mean(k + 1, x_next, image))
    torch.testing.assert_close(image, image_from_eps(x, out.eps, TABLE.signal[k]))
    torch.testing.assert_close(eps, eps_from_image(x_next, image, TABLE.signal[k + 1]))


def test_guided_prediction_is_the_two_predictions_combined(drafter, teacher) -> None:
    x, k, y = torch.randn(3, 2, 8, 8), torch.tensor([4, 0, 17]), torch.tensor([1, 2, 3])
    guidance = Guidance(1.5, 1, teacher.null_label)
    t, null = TABLE.timesteps[k], torch.full_like(y, teacher.null_label)
    rows = torch.tensor([2, 0, 1])
    x_next = torch.randn(3, 2, 8, 8)

    drafter = drafter.begin(DraftingBatch(TABLE, guidance))
    out = GuidedTeacher(teacher, guidance)(x, t, y)
    assert out.feature.shape == (3, 2, 4, 16)
    carry = drafter.carry_from(TeacherRows(*out, x, k), rows)
    eps, (feature, *_) = drafter.predict(x_next, k[rows] + 1, y[rows], carry)

    drafter = drafter.begin(PLAIN)
    alone = []
    for labels in (y, null):
        own = drafter.carry_from(TeacherRows(*teacher(x, t, labels), x, k), rows)
        # Both rows get the innovation of the transition that was really made.
        own = own._replace(mean=carry.mean)
        alone.append(drafter.predict(x_next, k[rows] + 1, labels[rows], own))
    (cond, (cond_feature, *_)), (uncond, (uncond_feature, *_)) = alone
    expected = torch.cat([uncond[:, :1] + 1.5 * (cond - uncond)[:, :1], cond[:, 1:]], dim=1)
    torch.testing.assert_close(eps, expected, rtol=1e-4, atol=1e-3)
    torch.testing.assert_close(feature, torch.stack([cond_feature, uncond_feature], 1))


def test_misuse_is_refused(drafter: FeatureDrafter, teacher: DiT) -> None:
    other = DrafterNet(dataclasses.replace(CONFIG, hidden_size=32))
    with pytest.raises(ValueError, match="network must be made for the teacher's config"):
        FeatureDrafter(other, teacher)
    zero = torch.zeros(2, 1)
    with pytest.raises(ValueError, match="teacher must return a feature for this drafter"):
        drafter.carry_from(TeacherRows(zero, None, None, zero, zero), torch.tensor([0]))
    flow = Schedule([1, 0], [1.0, 1.0], [-0.5, -0.5], [0.1, 0.0])
    with pytest.raises(ValueError, match="schedule must have signal and noise > 0"):
        drafter = drafter.begin(DraftingBatch(Table.of(flow, "cpu"), None))
    with pytest.raises(RuntimeError, match="begin"):
        FeatureDrafter(drafter.network, teacher).predict(zero, zero, zero, Anchored(*[zero] * 3))
