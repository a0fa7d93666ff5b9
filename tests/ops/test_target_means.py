"""target_means against guidance and schedule, and with bad input."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from free import Schedule
from free.models.guidance import Guidance
from free.ops import target_means
from free.schedule.table import Table, image_from_eps

DTYPES = pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])


@DTYPES
@pytest.mark.parametrize("channels", [None, 1, 3, 4])
@pytest.mark.parametrize("scale", [0.0, 0.4, 1.0, 4.0])
def test_is_what_guidance_and_table_compute(
    scale: float, channels: int | None, dtype: torch.dtype
) -> None:
    table, k = Table.of(Schedule.ddpm(20), "cpu"), torch.tensor([0, 7, 19])
    x, eps = torch.randn(3, 4, 5, 2), torch.randn(6, 4, 5, 2).to(dtype)
    result = target_means(x, eps, table.a[k], table.b[k], scale, channels)
    combined = Guidance(scale, channels, 10).combine(eps.float())
    torch.testing.assert_close(result.eps, combined, rtol=0, atol=0)
    torch.testing.assert_close(result.means, table.mean(k, x, combined), rtol=0, atol=0)


@DTYPES
def test_without_guidance(dtype: torch.dtype) -> None:
    x, eps = torch.randn(2, 3), torch.randn(2, 3).to(dtype)
    a, b = torch.tensor([2.0, 0.5]), torch.tensor([1.0, -1.0])
    result = target_means(x, eps, a, b)
    assert torch.equal(result.eps, eps.float())
    torch.testing.assert_close(result.means, a[:, None] * x + b[:, None] * eps.float())


@DTYPES
@pytest.mark.parametrize("guidance", [(None, None), (0.4, None), (4.0, 3)])
def test_the_image_is_that_of_the_guided_eps(guidance: tuple[Any, Any], dtype: torch.dtype) -> None:
    table, k = Table.of(Schedule.ddpm(20), "cpu"), torch.tensor([0, 7, 19])
    x, eps = torch.randn(3, 4, 5, 2), torch.randn(3 if guidance[0] is None else 6, 4, 5, 2)
    arguments = (x, eps.to(dtype), table.a[k], table.b[k], *guidance)
    plain = target_means(*arguments)
    result = target_means(*arguments, table.signal[k], table.noise[k])
    image = image_from_eps(x, result.eps, table.signal[k], table.noise[k])
    assert torch.equal(result.guess, image)
    assert plain.guess is plain.eps
    assert torch.equal(result.eps, plain.eps)
    assert torch.equal(result.means, plain.means)


def test_the_networks_answer_stays_as_it_is() -> None:
    eps = torch.randn(4, 3, 2)
    before = eps.clone()
    target_means(torch.randn(2, 3, 2), eps, torch.rand(2), torch.rand(2), 1.5, 2)
    assert torch.equal(eps, before)


@pytest.mark.parametrize("blend", [(None, None), (torch.rand(3) + 0.5, torch.rand(3))])
@pytest.mark.parametrize("guidance", [(None, None), (1.5, None), (4.0, 2)])
def test_is_a_well_formed_custom_op(guidance: tuple[Any, Any], blend: tuple[Any, Any]) -> None:
    rows = 3 if guidance[0] is None else 6
    arguments = (torch.randn(3, 4, 5), torch.randn(rows, 4, 5), torch.rand(3), torch.rand(3))
    checks = ("test_schema", "test_autograd_registration", "test_faketensor")
    given = (*arguments, *guidance, *blend)
    torch.library.opcheck(torch.ops.free.target_means, given, test_utils=checks)


GOOD = {
    "x": torch.zeros(3, 4, 5),
    "eps": torch.zeros(6, 4, 5),
    "a": torch.zeros(3),
    "b": torch.zeros(3),
    "cfg_scale": 1.5,
    "cfg_channels": 3,
    "signal": torch.ones(3),
    "noise": torch.zeros(3),
}


@pytest.mark.parametrize(
    ("name", "value", "error", "message"),
    [
        ("x", torch.zeros(3), ValueError, r"^x: expected shape \[R, C, \.\.\.\], got \[3\]$"),
        ("x", torch.zeros(3, 4).double(), TypeError, "^x: expected float32, got float64$"),
        ("eps", torch.zeros(3, 4, 5), ValueError, r"^eps: expected shape \[6, 4, 5\], got \[3, 4"),
        ("eps", torch.zeros(6, 4, 5).double(), TypeError, "^eps: expected float32, got float64$"),
        ("eps", [1.0], TypeError, "^eps: expected a tensor, got list$"),
        ("eps", torch.zeros(6, 5, 4).mT, ValueError, "^eps: expected a contiguous tensor, got"),
        ("a", torch.zeros(2), ValueError, r"^a: expected shape \[3\], got \[2\]$"),
        (
            "b",
            torch.zeros(3, device="meta"),
            ValueError,
            "^b: expected a tensor on cpu, got one on",
        ),
        ("cfg_scale", None, ValueError, r"^eps: expected shape \[3, 4, 5\], got \[6, 4, 5\]$"),
        ("cfg_channels", 5, ValueError, r"^cfg_channels: expected a value in 0\.\.4, got 5$"),
        ("cfg_channels", -1, ValueError, r"^cfg_channels: expected a value in 0\.\.4, got -1$"),
        (
            "signal",
            None,
            ValueError,
            "^signal and noise: expected both or neither, got one of them",
        ),
        (
            "noise",
            None,
            ValueError,
            "^signal and noise: expected both or neither, got one of them$",
        ),
        ("signal", torch.ones(4), ValueError, r"^signal: expected shape \[3\], got \[4\]$"),
        ("signal", torch.ones(3, 1), ValueError, r"^signal: expected shape \[3\], got \[3, 1\]$"),
        ("noise", torch.ones(3).double(), TypeError, "^noise: expected float32, got float64$"),
    ],
)
def test_bad_input(name: str, value: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        target_means(**(GOOD | {name: value}))
