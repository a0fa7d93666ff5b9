"""What a verifier makes of transitions whose law is known, and the tests that this law must pass.

A chain of transitions has the target means ``m(x) = x / 2`` and draft means at distance ``delta``
(in units of sigma) from them. The chain is sampled through a verifier, round by round, and each
transition's residual ``r = (x' - m(x)) / sigma`` is kept: whatever was accepted, repaired or
sampled from the target, residuals must be independent N(0, I).
"""

import functools
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from scipy.stats import norm
from torch import Tensor

from tests.law.stats import correlation_p, ks_normal

Verify = Callable[..., tuple[Tensor, Tensor, Tensor, Tensor]]

SIGMA = 0.3
CHUNK = 4000
#: A correct verifier falls below by chance once in 10,000 tests.
LEVEL = 1e-4


class Verdict(NamedTuple):
    """Smallest p-value of the law tests (Bonferroni), and the number of drafts that stood, in
    standard errors from its expectation.
    """

    p: float
    acceptance_z: float

    @property
    def passes(self) -> bool:
        return self.p > LEVEL and abs(self.acceptance_z) <= 4


@functools.cache
def standing(verifier: str, delta: float, drafts: int) -> np.ndarray:
    """Probabilities, [drafts], that at least 1, 2, .. drafts stand, each ``delta`` off.

    Of reflection the powers of ``2 Phi(-delta / 2)``. Of block verification ``E[p_j]``: the mean of
    a random walk of log-ratios, held at or below 0. It is computed backwards, on a grid: of the
    walk's start ``l``, ``V_0 = exp(l)`` and ``V_{j+1}(l) = E V_j(min(0, l + step))``.
    """
    if verifier == "reflection" or delta == 0:
        return (2 * norm.cdf(-delta / 2)) ** np.arange(1, drafts + 1)
    z, weight = np.polynomial.legendre.leggauss(400)
    z = 8 * z  # the draft's noise along e
    weight = 8 * weight * norm.pdf(z)
    step = delta * z - delta**2 / 2
    start = -(np.linspace(0, (30 + 10 * delta) ** 0.5, 4000)[::-1] ** 2)
    value, at_zero = np.exp(start), []
    for _ in range(drafts):
        after = np.minimum(0, start[:, None] + step)
        value = np.interp(after, start, value, left=0.0) @ weight
        at_zero.append(value[-1])
    return np.array(at_zero)


def judge(
    verify: Verify,
    dim: int,
    delta: float,
    *,
    verifier: str = "reflection",
    transitions: int = 2,
    window: int = 2,
    ragged: bool = False,
    chains: int = 20_000,
) -> Verdict:
    """Sample chains through ``verify`` and test them.

    Tested are, for each transition: KS of the residual's projections on the direction from target
    to draft mean and on two random directions; and for successive transitions the correlation of
    those projections, and KS of the sum of the two. How many drafts stand is held against
    :func:`standing` of ``verifier``.
    """
    generator = torch.Generator().manual_seed(1000 * dim + int(10 * delta))
    directions = torch.randn(3, dim, generator=generator)
    directions /= directions.norm(dim=1, keepdim=True)
    shift = SIGMA * delta * directions[0]
    lengths = (transitions, window, ragged)
    parts = [
        _chains(verify, min(CHUNK, chains), shift, lengths, directions, generator)
        for _ in range(0, chains, CHUNK)
    ]
    r, drafts, kept = (torch.cat(column) for column in zip(*parts, strict=True))
    steps = r.flatten(1).T  # of a transition, its three projections
    pairs = list(zip(steps[:-3], steps[3:], strict=True))
    tests = [ks_normal(step) for step in steps]
    tests += [correlation_p(*pair) for pair in pairs]
    tests += [ks_normal((one + next_) / 2**0.5) for one, next_ in pairs]
    # Of the number that stands among 0 .. W - 1 drafts.
    chance = standing(verifier, delta, window - 1)
    mean = np.append(0.0, chance.cumsum())
    square = np.append(0.0, ((2 * np.arange(1, window) - 1) * chance).cumsum())
    excess = float(kept.sum()) - mean[drafts].sum()
    error = (square - mean**2)[drafts].sum() ** 0.5
    acceptance_z = excess / error if error > 1e-9 else (0.0 if abs(excess) < 1e-6 else np.inf)
    return Verdict(min(1.0, len(tests) * min(tests)), acceptance_z)


def _chains(
    verify: Verify,
    count: int,
    shift: Tensor,
    lengths: tuple[int, int, bool],
    directions: Tensor,
    generator: torch.Generator,
) -> tuple[Tensor, Tensor, Tensor]:
    """Residuals' projections [count, transitions, directions]; and of every window, how many drafts
    it had, and how many stood.
    """
    transitions, window, ragged = lengths
    dim = len(shift)
    x, k = torch.randn(count, dim, generator=generator), torch.zeros(count, dtype=torch.int64)
    projections = torch.full((count, transitions, len(directions)), torch.nan)
    rows, drafts, stood = torch.arange(count), [], []
    while len(rows):
        batch = len(rows)
        length = (transitions - k[rows]).clamp(max=window).int()
        if ragged:
            fewer = torch.randint(0, window, (batch,), generator=generator)
            length = (length - fewer).clamp(min=1).int()
        z = torch.randn(batch, window - 1, dim, generator=generator)
        states = torch.empty(batch, window, dim)
        states[:, 0] = x[rows]
        for j in range(window - 1):
            states[:, j + 1] = states[:, j] / 2 + shift + SIGMA * z[:, j]
        means = states / 2
        noise = torch.randn(batch, dim, generator=generator)
        uniforms = torch.rand(batch, window - 1, generator=generator)
        draft_means = (means + shift)[:, :-1].contiguous()
        sigma = torch.full((batch, window), SIGMA)
        state, advance, kept, _ = verify(states, draft_means, means, sigma, length, uniforms, noise)
        drafts.append(length.long() - 1)
        stood.append(kept)
        for j in range(window):
            made = advance > j
            last = (advance == j + 1)[:, None]
            after = torch.where(last, state, states[:, min(j + 1, window - 1)])
            residual = (after - means[:, j]) / SIGMA
            projections[rows[made], k[rows[made]] + j] = (residual @ directions.T)[made]
        x[rows], k[rows] = state, k[rows] + advance
        rows = rows[k[rows] < transitions]
    return projections, torch.cat(drafts), torch.cat(stood)
