"""What a verifier makes of transitions whose law is known, and the tests that this law must pass.

A chain of transitions has the target means ``m(x) = x / 2`` and draft means at distance ``delta``
(in units of sigma) from them. The chain is sampled through a verifier, round by round, and each
transition's residual ``r = (x' - m(x)) / sigma`` is kept: whatever was accepted, repaired or
sampled from the target, residuals must be independent N(0, I).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from scipy.stats import norm
from torch import Tensor

from tests.law.stats import binomial_z, correlation_p, ks_normal

Verify = Callable[..., tuple[Tensor, Tensor, Tensor, Tensor]]

SIGMA = 0.3
CHUNK = 4000
#: A correct verifier falls below by chance once in 10,000 tests.
LEVEL = 1e-4


class Verdict(NamedTuple):
    """Smallest p-value of the law tests (Bonferroni) and acceptance in standard errors."""

    p: float
    acceptance_z: float

    @property
    def passes(self) -> bool:
        return self.p > LEVEL and abs(self.acceptance_z) <= 4


def judge(
    verify: Verify,
    dim: int,
    delta: float,
    *,
    transitions: int = 2,
    window: int = 2,
    ragged: bool = False,
    chains: int = 20_000,
) -> Verdict:
    """Sample chains through ``verify`` and test them.

    Tested are, for each transition: KS of the residual's projections on the direction from target
    to draft mean and on two random directions; and for successive transitions the correlation of
    those projections. Acceptance is held against ``2 Phi(-delta / 2)``.
    """
    generator = torch.Generator().manual_seed(1000 * dim + int(10 * delta))
    directions = torch.randn(3, dim, generator=generator)
    directions /= directions.norm(dim=1, keepdim=True)
    shift = SIGMA * delta * directions[0]
    accepted = examined = 0
    projections = []
    for _ in range(0, chains, CHUNK):
        residuals, kept, seen = _chains(
            verify, min(CHUNK, chains), shift, transitions, window, ragged, directions, generator
        )
        accepted, examined = accepted + kept, examined + seen
        projections.append(residuals)
    r = torch.cat(projections)
    tests = [ks_normal(r[:, k, v]) for k in range(transitions) for v in range(3)]
    tests += [
        correlation_p(r[:, k - 1, v], r[:, k, v]) for k in range(1, transitions) for v in range(3)
    ]
    acceptance = 2 * float(norm.cdf(-delta / 2))
    return Verdict(min(1.0, len(tests) * min(tests)), binomial_z(accepted, examined, acceptance))


def _chains(
    verify: Verify,
    count: int,
    shift: Tensor,
    transitions: int,
    window: int,
    ragged: bool,
    directions: Tensor,
    generator: torch.Generator,
) -> tuple[Tensor, int, int]:
    """Residuals' projections [count, transitions, directions], drafts accepted and examined."""
    dim = len(shift)
    x = torch.randn(count, dim, generator=generator)
    k = torch.zeros(count, dtype=torch.int64)
    projections = torch.full((count, transitions, len(directions)), torch.nan)
    rows = torch.arange(count)
    accepted = examined = 0
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
        state, advance, kept, _ = verify(
            states,
            (means + shift)[:, :-1].contiguous(),
            means,
            torch.full((batch, window), SIGMA),
            length,
            uniforms,
            noise,
        )
        accepted += int(kept.sum())
        examined += int(torch.minimum(kept + 1, length - 1).sum())
        for j in range(window):
            made = advance > j
            last = (advance == j + 1)[:, None]
            after = torch.where(last, state, states[:, min(j + 1, window - 1)])
            residual = (after - means[:, j]) / SIGMA
            projections[rows[made], k[rows[made]] + j] = (residual @ directions.T)[made]
        x[rows], k[rows] = state, k[rows] + advance
        rows = rows[k[rows] < transitions]
    return projections, accepted, examined
