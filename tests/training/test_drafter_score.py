"""Evaluation while training: figures, and sharing among ranks."""

import math

import pytest
import torch

from free import DiT, DiTConfig, DrafterNet, FeatureDrafter, Schedule, SpeculativeSampler
from free.training.drafter_score import DrafterEvaluation
from free.training.parallel import Ranks
from tests.networks import randomized

CONFIG = DiTConfig(2, 1, 1, 8, 1, 2, num_classes=3, learn_sigma=False)


@pytest.fixture(scope="module")
def networks() -> tuple[DiT, DrafterNet]:
    return randomized(DiT(CONFIG)).eval(), randomized(DrafterNet(CONFIG), 1).eval()


def test_it_is_what_the_sampler_reports(networks: tuple[DiT, DrafterNet]) -> None:
    teacher, drafter = networks
    evaluation = DrafterEvaluation(
        teacher, 12, images=5, window=4, batch_size=2, seed=7,
        recommended={"window": 6, "sweeps": 1, "recycle": True},
    )  # fmt: skip
    result = evaluation(drafter, Ranks())
    sampler = SpeculativeSampler(
        teacher, FeatureDrafter(drafter, teacher), Schedule.ddpm(12), 4, cfg_scale=1.5
    )
    report = sampler.sample([0, 1, 2, 0, 1], seed=7).report
    assert result["parallel_efficiency"] == pytest.approx(report.parallel_efficiency)
    assert result["acceptance"] == pytest.approx(
        sum(report.accepted_by_step) / sum(report.examined_by_step)
    )
    for got, expected in zip(result["acceptance_by_step"], report.acceptance_by_step, strict=True):
        assert (got is None and math.isnan(expected)) or got == pytest.approx(expected)
    assert len(result["delta_by_position"]) == len(result["acceptance_by_position"]) == 3
    assert result["recommended_efficiency"] > 1
    assert (result["images"], result["window"], result["cfg_scale"]) == (5, 4, 1.5)


class _Shared(Ranks):
    """One of two ranks that run one after the other: sums wait for the other's."""

    def __init__(self, rank: int, world: int = 2) -> None:
        super().__init__(rank, world)
        object.__setattr__(self, "sums", [])

    def sum(self, value: torch.Tensor) -> torch.Tensor:
        self.sums.append(value.clone())
        return value


def test_ranks_share_the_images(networks: tuple[DiT, DrafterNet]) -> None:
    """What two ranks add up is what one counts."""
    teacher, drafter = networks
    evaluation = DrafterEvaluation(teacher, 8, images=5, window=3)
    each = _Shared(0), _Shared(1), _Shared(0, 1)
    for ranks in each:
        evaluation(drafter, ranks)
    for first, second, whole in zip(*(ranks.sums for ranks in each), strict=True):
        torch.testing.assert_close(first + second, whole)
    assert all(ranks.sums[0].sum() > 0 for ranks in each)


def test_few_images_are_spread_over_many_classes() -> None:
    teacher = DiT(DiTConfig(2, 1, 1, 8, 1, 2, num_classes=100, learn_sigma=False))
    assert [DrafterEvaluation(teacher, images=4)._label(i) for i in range(4)] == [0, 25, 50, 75]
    assert [DrafterEvaluation(teacher, images=200)._label(i) for i in (0, 99, 100)] == [0, 99, 0]
