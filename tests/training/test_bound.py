"""The variational bound of a learned variance, against closed forms."""

import math

import numpy as np
import pytest
import torch
from scipy.stats import norm

from free import DiT, DiTConfig
from free.training.bound import log_variances, variational_bound
from free.training.losses import noised, table_of, teacher_loss
from free.training.randomness import RowRandom

STEPS = 1000
TABLE = table_of(STEPS, torch.device("cpu"))


def _betas() -> tuple[np.ndarray, np.ndarray]:
    """Variances of the forward process and of its posterior, in the order of the transitions."""
    betas = np.linspace(1e-4, 2e-2, STEPS)
    alpha_bar = np.cumprod(1 - betas)
    before = np.append(1.0, alpha_bar[:-1])
    return betas[::-1], (betas * (1 - before) / (1 - alpha_bar))[::-1]


def _bound(k: int, variance: float, miss: float) -> torch.Tensor:
    """Of 8 rows whose predicted noise is off by ``miss`` everywhere."""
    generator = torch.Generator().manual_seed(k)
    x0 = torch.rand(8, 3, 4, 4, generator=generator) * 1.8 - 0.9
    noise = torch.randn(x0.shape, generator=generator)
    index = torch.full((8,), k)
    x = noised(TABLE, index, x0, noise)
    v = torch.full_like(x, variance)
    return variational_bound(TABLE, index, x, x0=x0, noise=noise, eps=noise + miss, variance=v)


def test_log_variances_are_the_posteriors_and_betas() -> None:
    upper, posterior = _betas()
    found = log_variances(STEPS, torch.device("cpu"))
    assert np.allclose(found.upper.exp(), upper, rtol=1e-4)
    assert np.allclose(found.posterior[:-1].exp(), posterior[:-1], rtol=1e-4)
    assert found.posterior[-1] == found.posterior[-2]


@pytest.mark.parametrize("k", [0, 500, 990])
@pytest.mark.parametrize("variance", [-1.0, 0.3, 1.0])
def test_it_is_the_divergence_of_two_gaussians(k: int, variance: float) -> None:
    upper, posterior = _betas()
    share = (variance + 1) / 2
    mine = posterior[k] ** (1 - share) * upper[k] ** share
    # How far a miss of the noise moves the mean: beta / sqrt(alpha (1 - alpha_bar)).
    alpha_bar = np.cumprod(1 - np.linspace(1e-4, 2e-2, STEPS))[::-1][k]
    shift = 0.1 * upper[k] / math.sqrt((1 - upper[k]) * (1 - alpha_bar))
    expected = 0.5 * (np.log(mine / posterior[k]) + (posterior[k] + shift**2) / mine - 1)
    found = _bound(k, variance, miss=0.1)
    assert found.numpy() == pytest.approx(expected / math.log(2), rel=2e-3, abs=1e-6)


def test_it_is_least_where_the_variance_explains_the_error() -> None:
    """sigma^2 = beta~ + shift^2: the zero of the derivative, which a wrong sign would move."""
    k, miss = 900, 0.05
    upper, posterior = _betas()
    alpha_bar = np.cumprod(1 - np.linspace(1e-4, 2e-2, STEPS))[::-1][k]
    shift = miss * upper[k] / math.sqrt((1 - upper[k]) * (1 - alpha_bar))
    share = np.log((posterior[k] + shift**2) / posterior[k]) / np.log(upper[k] / posterior[k])
    assert 0 < share < 1
    best = 2 * share - 1
    at = [float(_bound(k, best + step, miss).mean()) for step in (-0.2, 0.0, 0.2)]
    assert at[1] < at[0]
    assert at[1] < at[2]


def test_the_last_transition_is_the_likelihood_of_levels() -> None:
    """All 256 of a pixel add up to one, and it is the Gaussian's mass of a level's width."""
    k = torch.full((256,), STEPS - 1)
    levels = torch.linspace(-1, 1, 256).view(256, 1, 1, 1)
    x = torch.full_like(levels, 0.2)
    eps = torch.full_like(levels, 0.5)
    mean = float(TABLE.mean(k, x, TABLE.guess(k, x, eps))[0])
    # The prediction is the same for all of them, whatever their noise was.
    bits = variational_bound(
        TABLE, k, x, x0=levels, noise=eps, eps=eps, variance=torch.ones_like(x)
    )
    assert float((2.0**-bits).sum()) == pytest.approx(1.0, abs=1e-3)
    place = int((mean + 1) * 127.5)
    low, high = (float(levels[place]) + side / 255 for side in (-1, 1))
    sigma = math.sqrt(1e-4)
    mass = norm.cdf(high, mean, sigma) - norm.cdf(low, mean, sigma)
    assert float(bits[place]) == pytest.approx(-math.log2(mass), rel=1e-3)


def test_the_mean_is_not_trained_by_it() -> None:
    """The noise's output channels get their gradient from the squared error alone."""
    teacher = DiT(DiTConfig(8, 4, 1, 16, 1, 2, num_classes=3))
    x0, labels = torch.zeros(4, 1, 8, 8), torch.tensor([0, 1, 2, 0])

    def gradient(*parts: str) -> torch.Tensor:
        teacher.zero_grad()
        random = RowRandom(0, 0, range(4))
        terms = teacher_loss(_Split(teacher, parts), x0, labels, random, null_label=3)
        terms["loss"].backward()
        return teacher.final_layer.linear.bias.grad.view(16, 2).clone()

    both, alone = gradient("eps", "variance"), gradient("eps")
    assert torch.equal(both[:, 0], alone[:, 0])  # of the noise
    assert both[:, 1].abs().max() > 0  # of the variance


class _Split(torch.nn.Module):
    """The teacher, without gradients of some of its outputs."""

    def __init__(self, teacher: DiT, parts: tuple[str, ...]) -> None:
        super().__init__()
        self.teacher, self.parts = teacher, parts

    def forward(self, *given: torch.Tensor):
        out = self.teacher(*given)
        held = {
            name: getattr(out, name).detach()
            for name in ("eps", "variance")
            if name not in self.parts
        }
        return out._replace(**held)
