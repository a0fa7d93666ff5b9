"""Drafting without training."""

import pytest
import torch

from free import FrozenDrafter, Schedule, SpeculativeSampler, TeacherOutput
from free.drafters import DraftingBatch
from free.models.output import TeacherRows
from free.schedule.table import Table, eps_from_image

TABLE = Table.of(Schedule.ddpm(20), "cpu")
K, Y = torch.tensor([3, 7]), torch.tensor([0, 1])


@pytest.mark.parametrize("keep", ["image", "eps"])
def test_it_repeats_the_teacher_where_the_teacher_stood(keep: str) -> None:
    drafter = FrozenDrafter(keep)
    drafter = drafter.begin(DraftingBatch(TABLE, None))
    x, eps = torch.randn(2, 2, 3)
    carry = drafter.carry_from(TeacherRows(eps, None, None, x, K), torch.tensor([1, 0]))
    again, _ = drafter.predict(x.flip(0), K.flip(0), Y, carry)
    torch.testing.assert_close(again, eps.flip(0), rtol=1e-4, atol=1e-4)


def test_keeping_the_image_is_perfect_where_there_is_one_image() -> None:
    """All drafts stand if the teacher always predicts the same x0."""
    image = torch.tensor([0.3, -0.8])

    def teacher(x: torch.Tensor, t: torch.Tensor, y: torch.Tensor) -> TeacherOutput:
        k = (TABLE.timesteps[None] == t[:, None]).int().argmax(1)
        return TeacherOutput(eps_from_image(x, image.expand_as(x), TABLE.signal[k]))

    def rounds(keep: str) -> int:
        sampler = SpeculativeSampler(teacher, FrozenDrafter(keep), Schedule.ddpm(20), window=8)
        return sampler.sample([0, 1], shape=(2,)).report.rounds

    assert rounds("image") == 4
    assert rounds("eps") > 6


def test_misuse_is_refused() -> None:
    with pytest.raises(ValueError, match="keep must be 'image' or 'eps', got 'noise'"):
        FrozenDrafter("noise")
    flow = Table.of(Schedule([1, 0], [1.0, 1.0], [-0.5, -0.5], [0.1, 0.0]), "cpu")
    with pytest.raises(ValueError, match="schedule must have signal and noise > 0"):
        FrozenDrafter().begin(DraftingBatch(flow, None))
    FrozenDrafter("eps").begin(DraftingBatch(flow, None))


def test_one_that_has_not_begun_drafts_nothing() -> None:
    """Else it would keep eps, unnoticed."""
    drafter = FrozenDrafter()
    assert drafter.begin(DraftingBatch(TABLE, None)) is not drafter
    x, k = torch.zeros(1, 4), torch.zeros(1, dtype=torch.int64)
    with pytest.raises(RuntimeError, match=r"for the drafter that begin\(\) returns$"):
        drafter.predict(x, k, k, x)
