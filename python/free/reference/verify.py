"""Twins of the verifiers."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TypeVar

import torch
from torch import Tensor

from free.reference.decide import DECISIONS, RULES, Outcome, Transitions, decide_relaxed

__all__ = ["verify_window", "verify_window_relaxed"]

T = TypeVar("T")


def verify_window(
    states: Tensor,
    draft_means: Tensor,
    target_means: Tensor,
    sigma: Tensor,
    length: Tensor,
    uniforms: Tensor,
    noise: Tensor,
    verifier: str = "reflection",
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Keep the drafts that the target's law allows and repair the next transition.

    Parameters and results are those of :func:`free.ops.verify_window`.
    """
    decide = _named(DECISIONS, "verifier", verifier)
    window = (states, draft_means, target_means, sigma)
    return _write(*window, noise, decide(_reduce(*window, length, noise), uniforms.double()))


def verify_window_relaxed(
    states: Tensor,
    draft_means: Tensor,
    target_means: Tensor,
    sigma: Tensor,
    length: Tensor,
    uniforms: Tensor,
    noise: Tensor,
    uncertainty: Tensor | None,
    spent: Tensor,
    rule: str = "allow",
    strength: float = 0.3,
    budget: float = math.inf,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Keep more drafts, and say what that does to the law.

    Parameters and results are those of :func:`free.ops.verify_window_relaxed`.
    """
    _named(RULES, "rule", rule)
    window = (states, draft_means, target_means, sigma)
    outcome, account = decide_relaxed(
        _reduce(*window, length, noise),
        uniforms.double(),
        None if uncertainty is None else uncertainty.double(),
        spent,
        rule,
        strength,
        budget,
    )
    return *_write(*window, noise, outcome), *account


def _named(table: Mapping[str, T], argument: str, name: str) -> T:
    if name not in table:
        expected = ", ".join(map(repr, table))
        raise ValueError(f"{argument}: expected one of {expected}, got {name!r}")
    return table[name]


def _reduce(
    states: Tensor,
    draft_means: Tensor,
    target_means: Tensor,
    sigma: Tensor,
    length: Tensor,
    noise: Tensor,
) -> Transitions:
    """Unscaled and in float64, where the products of float32 differences are exact and neither
    overflow nor underflow.
    """
    drafts = states.shape[1] - 1
    drawn, shift = _differences(states, draft_means, target_means)
    wide, fresh = shift.double(), noise.reshape(len(noise), -1).double()
    return Transitions(
        torch.linalg.vecdot(drawn.double(), wide),
        torch.linalg.vecdot(wide, wide),
        torch.linalg.vecdot(fresh[:, None], wide),
        sigma[:, :drafts].double(),
        torch.arange(drafts, device=states.device) < length[:, None] - 1,
    )


def _write(
    states: Tensor,
    draft_means: Tensor,
    target_means: Tensor,
    sigma: Tensor,
    noise: Tensor,
    outcome: Outcome,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    batch, width = states.shape[:2]
    sample, accepted = torch.arange(batch, device=states.device), outcome.accepted
    mean = target_means.flatten(2)[sample, accepted]
    scale = sigma[sample, accepted, None]
    change = scale * noise.reshape(batch, -1)
    if width > 1:
        drawn, shift = _differences(states, draft_means, target_means)
        j = accepted.clamp(max=width - 2)
        change = torch.where(outcome.keeps_noise[:, None], drawn[sample, j], change)
        factor = outcome.shift_factor.float()[:, None]
        # Where the factor is 0 nothing is read: there may be no draft, or one that is not finite.
        change = change + torch.where(factor == 0, 0.0, factor * shift[sample, j])
    state = torch.where(scale > 0, mean + change, mean)
    accepted = accepted.int()
    return state.view(noise.shape), accepted + 1, accepted, outcome.log_ratio.float()


def _differences(
    states: Tensor, draft_means: Tensor, target_means: Tensor
) -> tuple[Tensor, Tensor]:
    """``x_hat - m_hat`` and ``m_hat - m`` of the drafts, [B, W - 1, D]."""
    m_hat = draft_means.flatten(2)
    return states.flatten(2)[:, 1:] - m_hat, m_hat - target_means.flatten(2)[:, :-1]
