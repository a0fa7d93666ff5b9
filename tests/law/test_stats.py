"""The statistical tests themselves: quiet where laws agree, loud where they differ."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from tests.law.stats import correlation_p, energy_test, ks_normal, ks_two_sample

N = 5000


def normals(*shape: int) -> Tensor:
    return torch.randn(*shape)


def test_p_values_of_equal_laws_are_spread() -> None:
    p = [energy_test(normals(400, 2), normals(400, 2), block=200) for _ in range(40)]
    p += [ks_two_sample(normals(N), normals(N)) for _ in range(40)]
    p += [ks_normal(normals(N)) for _ in range(40)]
    p += [correlation_p(normals(N), normals(N)) for _ in range(40)]
    values = torch.tensor(p).view(4, 40)
    assert bool(((values < 0.5).sum(1) - 20).abs().le(13).all())  # four standard errors
    assert values.min().item() > 1e-4


@pytest.mark.parametrize(
    "change",
    [
        lambda y: y + torch.tensor([0.2, 0.0]),
        lambda y: y * 1.3,
        lambda y: torch.stack((y[:, 0], y[:, 0] * y[:, 1].sign()), 1),  # normal margins, dependent
    ],
    ids=["shift", "scale", "dependence"],
)
def test_energy_test_sees_other_laws(change: Callable[[Tensor], Tensor]) -> None:
    assert energy_test(normals(N, 2), change(normals(N, 2))) < 1e-4


def test_ks_and_correlation_see_differences() -> None:
    x = normals(N)
    assert ks_normal(x + 0.1) < 1e-4
    assert ks_two_sample(normals(N), x + 0.15) < 1e-4
    assert correlation_p(x, normals(N) + 0.1 * x) < 1e-4
