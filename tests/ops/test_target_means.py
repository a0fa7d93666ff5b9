"""target_means against guidance and schedule."""

from typing import Any

import pytest
import torch

from free import Schedule
from free.models.guidance import Guidance
from free.ops import target_means
from free.schedule.table import Table, image_from_eps

DTYPES = pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])


@pytest.mark.parametrize(
    ("scale", "channels", "dtype"),
    [
        (0.0, None, torch.float32),
        (0.4, 1, torch.float16),
        (1.0, 3, torch.bfloat16),
        (4.0, 4, torch.float32),
        (4.0, 3, torch.float16),
    ],
)
def test_is_what_guidance_and_table_compute(scale, channels, dtype) -> None:
    table, k = Table.of(Schedule.ddpm(20), "cpu"), torch.tensor([0, 7, 19])
    x, eps = torch.randn(3, 4, 5, 2), torch.randn(6, 4, 5, 2).to(dtype)
    result = target_means(x, eps, k, table.columns[:2], scale, channels)
    combined = Guidance(scale, channels, 10).combine(eps.float())
    torch.testing.assert_close(result.eps, combined, rtol=0, atol=0)
    torch.testing.assert_close(result.means, table.mean(k, x, combined), rtol=0, atol=0)


@DTYPES
def test_without_guidance(dtype: torch.dtype) -> None:
    x, eps = torch.randn(2, 3), torch.randn(2, 3).to(dtype)
    affine = torch.tensor([[2.0, 9.0, 0.5], [1.0, 9.0, -1.0]])
    result = target_means(x, eps, torch.tensor([0, 2]), affine)
    assert torch.equal(result.eps, eps.float())
    a, b = affine[:, [0, 2], None]
    torch.testing.assert_close(result.means, a * x + b * eps.float())


@pytest.mark.parametrize(
    ("guidance", "dtype"),
    [((None, None), torch.float32), ((0.4, None), torch.bfloat16), ((4.0, 3), torch.float16)],
)
def test_the_image_is_that_of_the_guided_eps(guidance: tuple[Any, Any], dtype: torch.dtype) -> None:
    table, k = Table.of(Schedule.ddpm(20), "cpu"), torch.tensor([0, 7, 19])
    x, eps = torch.randn(3, 4, 5, 2), torch.randn(3 if guidance[0] is None else 6, 4, 5, 2)
    arguments = (x, eps.to(dtype), k, table.columns[:2], *guidance)
    plain = target_means(*arguments)
    result = target_means(*arguments, scales=table.columns[3:])
    image = image_from_eps(x, result.eps, table.signal[k], table.noise[k])
    assert torch.equal(result.guess, image)
    assert plain.guess is plain.eps
    assert torch.equal(result.eps, plain.eps)
    assert torch.equal(result.means, plain.means)


def test_the_networks_answer_stays_as_it_is() -> None:
    eps = torch.randn(4, 3, 2)
    before = eps.clone()
    k = torch.tensor([0, 1])
    target_means(torch.randn(2, 3, 2), eps, k, torch.rand(2, 2), 1.5, 2)
    assert torch.equal(eps, before)


@pytest.mark.parametrize("k", [-1, 2, 2**40])
def test_a_transition_that_is_not_there(k: int) -> None:
    x = torch.randn(2, 3)
    with pytest.raises(ValueError, match=rf"^k: expected values in 0\.\.1, got {k} for row 1$"):
        target_means(x, x, torch.tensor([0, k]), torch.rand(2, 2))
