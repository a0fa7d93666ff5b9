"""The compiled kernels in plain torch: same names, same maths, any device.

These twins say what the kernels compute, are what the kernels are tested against, and run where no
kernel exists. They do not check their arguments; :mod:`free.ops` does.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TypeVar

import torch
from torch import Tensor

from free.verifiers import DECISIONS, RULES, Outcome, Transitions, decide_relaxed

__all__ = [
    "philox4x32",
    "philox_normal",
    "philox_uniform",
    "recycled_rows",
    "roll_window",
    "target_means",
    "verify_window",
    "verify_window_relaxed",
]

T = TypeVar("T")
_WORD = 0xFFFFFFFF


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


def roll_window(
    x: Tensor, guess: Tensor, noise: Tensor, a: Tensor, b: Tensor, sigma: Tensor
) -> tuple[Tensor, Tensor]:
    """Roll a window of states forward from guesses.

    Parameters and results are those of :func:`free.ops.roll_window`.
    """
    states, means = [x], []
    for j in range(guess.shape[1]):
        # A coefficient for each sample, broadcast over its axes.
        a_j, b_j, sigma_j = (c[:, j].view(-1, *[1] * (x.dim() - 1)) for c in (a, b, sigma))
        means.append(a_j * states[j] + b_j * guess[:, j])
        states.append(means[j] + sigma_j * noise[:, j])
    return torch.stack(states, 1), torch.stack(means, 1) if means else torch.empty_like(guess)


def target_means(
    x: Tensor,
    eps: Tensor,
    a: Tensor,
    b: Tensor,
    cfg_scale: float | None = None,
    cfg_channels: int | None = None,
) -> tuple[Tensor, Tensor]:
    """``a x + b eps``, with eps guided and in float32 first.

    Parameters and results are those of :func:`free.ops.target_means`.
    """
    eps = eps.to(torch.float32, copy=True)
    if cfg_scale is not None:
        eps, unconditional = (row.contiguous() for row in eps.unflatten(0, (-1, 2)).unbind(1))
        guided = slice(cfg_channels)
        eps[:, guided] = torch.lerp(unconditional[:, guided], eps[:, guided], cfg_scale)
    a, b = (c.view(-1, *[1] * (x.dim() - 1)) for c in (a, b))
    return eps, torch.addcmul(a * x, b, eps)


def recycled_rows(
    length: Tensor, advance: Tensor, width: int, discarded: bool, stride: int | None = None
) -> tuple[Tensor, Tensor]:
    """Shift the rows of a teacher call by what each sample advanced.

    Parameters and results are those of :func:`free.ops.recycled_rows`.
    """
    length, advance = length.long(), advance.long()
    made = advance - 1
    last = length - 1 if discarded else made
    if stride is None:
        start = length.cumsum(0) - length
    else:
        start = stride * torch.arange(len(length), device=length.device)
    step = torch.arange(width, device=length.device)
    entry = torch.minimum(made[:, None] + step, last[:, None])
    return start[:, None] + entry, last - made + 1


def philox4x32(counter: Tensor, key: Tensor) -> Tensor:
    """Philox4x32-10 (Salmon et al., SC 2011) on 32-bit words held in int64.

    Parameters
    ----------
    counter : Tensor, shape [..., 4], int64
        Words in ``0 .. 2**32 - 1``.
    key : Tensor, shape [..., 2], int64
        Low and high word of the key; broadcasts against ``counter``.

    Returns
    -------
    Tensor, shape [..., 4], int64
        Random words in ``0 .. 2**32 - 1``.
    """
    x, y, z, w = counter.unbind(-1)
    k0, k1 = key.unbind(-1)
    for _ in range(10):
        # The products wrap at 64 bits as unsigned ones do; masking undoes the sign of the shift.
        p0, p1 = x * 0xD2511F53, z * 0xCD9E8D57
        x, y, z, w = (
            (p1 >> 32 & _WORD) ^ y ^ k0,
            p1 & _WORD,
            (p0 >> 32 & _WORD) ^ w ^ k1,
            p0 & _WORD,
        )
        k0, k1 = k0 + 0x9E3779B9 & _WORD, k1 + 0xBB67AE85 & _WORD
    return torch.stack((x, y, z, w), -1)


def philox_uniform(
    seeds: Tensor, transition: Tensor, round: Tensor, purpose: int, size: int
) -> Tensor:
    """Uniforms in [0, 1), multiples of 2**-24: float32 ``[R, size]``.

    ``seeds``, ``transition`` and ``round`` are int64 ``[R]``; see :func:`free.random.uniform`.
    """
    words = _words(seeds, transition, round, purpose, size)
    return ((words >> 8).float() * 2.0**-24)[:, :size].contiguous()


def philox_normal(
    seeds: Tensor, transition: Tensor, round: Tensor, purpose: int, size: int
) -> Tensor:
    """Standard normals by Box-Muller, evaluated in float64: float32 ``[R, size]``.

    ``seeds``, ``transition`` and ``round`` are int64 ``[R]``; see :func:`free.random.normal`.
    """
    pairs = _words(seeds, transition, round, purpose, size).unflatten(1, (-1, 2))
    radius_word, angle_word = pairs.unbind(-1)
    # float32 as in the kernel, so that the radius' uniform is the same number.
    u = ((radius_word >> 1).float() + 0.5) * 2.0**-31
    radius = torch.sqrt(-2.0 * torch.log(u.double()))
    angle = angle_word.double() * (2.0 * math.pi / 2**32)
    normals = torch.stack((radius * torch.cos(angle), radius * torch.sin(angle)), -1)
    return normals.flatten(1)[:, :size].float().contiguous()


def _words(seeds: Tensor, transition: Tensor, round: Tensor, purpose: int, size: int) -> Tensor:
    """Words ``[R, 4 * ceil(size / 4)]`` int64 of R rows."""
    block = torch.arange((size + 3) // 4, device=seeds.device).expand(len(seeds), -1)
    column = (transition[:, None], round[:, None], torch.full_like(seeds, purpose)[:, None])
    counter = torch.stack((block, *(word.expand_as(block) for word in column)), -1)
    key = torch.stack((seeds & _WORD, seeds >> 32 & _WORD), -1)
    return philox4x32(counter, key[:, None]).flatten(1)
