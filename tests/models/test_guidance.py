"""Classifier-free guidance."""

import math

import pytest
import torch

from free.models.guidance import Guidance, GuidedTeacher, blend
from free.models.output import TeacherOutput


def _teacher(x: torch.Tensor, t: torch.Tensor, y: torch.Tensor) -> TeacherOutput:
    value = (y + 10 * t).view(-1, 1, 1).float()
    return TeacherOutput(x * value, value.expand(-1, 4, 2), x + value)


@pytest.mark.parametrize(("scale", "channels"), [(0.0, None), (1.5, None), (1.5, 3), (4.0, 1)])
def test_guided_eps(scale: float, channels: int | None) -> None:
    x, t, y = torch.randn(3, 4, 5), torch.tensor([1, 2, 3]), torch.tensor([0, 4, 6])
    out = GuidedTeacher(_teacher, Guidance(scale, channels, 7))(x, t, y)
    cond = _teacher(x, t, y)
    uncond = _teacher(x, t, torch.full_like(y, 7))
    expected = uncond.eps + scale * (cond.eps - uncond.eps)
    if channels is not None:
        expected[:, channels:] = cond.eps[:, channels:]
    torch.testing.assert_close(out.eps, expected, rtol=1e-5, atol=1e-4)
    torch.testing.assert_close(out.feature, torch.stack([cond.feature, uncond.feature], dim=1))
    torch.testing.assert_close(out.variance, cond.variance)


def test_a_scale_for_each_channel_and_1_for_those_that_are_not_guided() -> None:
    eps, scale = torch.randn(6, 4, 5), torch.tensor([1.5, 1.5, 1.5, 1.0])
    guided = Guidance(1.5, 3, 7).combine(eps)
    assert torch.equal(blend(eps, scale[:, None]), guided)


def test_scale_and_channels_are_checked() -> None:
    for scale in (-0.1, math.inf, math.nan):
        with pytest.raises(ValueError, match="cfg_scale must be finite and >= 0"):
            Guidance(scale, None, 0)
    for channels in (0, 1.5):
        message = f"cfg_channels must be an integer >= 1 or None, got {channels}"
        with pytest.raises(ValueError, match=message):
            Guidance(1.5, channels, 0)
    with pytest.raises(ValueError, match="cfg_channels must be at most the 3 of a state, got 4"):
        Guidance(1.5, 4, 0).combine(torch.zeros(2, 3, 4))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_it_is_taken_in_float32(dtype: torch.dtype) -> None:
    def teacher(x: torch.Tensor, t: torch.Tensor, y: torch.Tensor) -> TeacherOutput:
        return TeacherOutput((x * (1 + 0.01 * y.view(-1, 1, 1))).to(dtype))

    x, t, y = torch.randn(64, 4, 5), torch.zeros(64), torch.zeros(64, dtype=torch.int64)
    out = GuidedTeacher(teacher, Guidance(4.0, None, 1))(x, t, y)
    cond, uncond = (teacher(x, t, label).eps.double() for label in (y, y + 1))
    assert out.eps.dtype is torch.float32
    expected = uncond + 4.0 * (cond - uncond)  # of what the network said, rounded as it was
    torch.testing.assert_close(out.eps.double(), expected, rtol=1e-5, atol=1e-5)
