"""Mistakes of a verifier, planted around the op; and the window that they see."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from free.ops import Verified, verify_window


class Window(NamedTuple):
    """The arguments of ``verify_window``, in its order."""

    states: Tensor
    draft_means: Tensor
    target_means: Tensor
    sigma: Tensor
    length: Tensor
    uniforms: Tensor
    noise: Tensor

    def drafted(self, of_drafts: Tensor, others: Tensor) -> Tensor:
        """Rows ``of_drafts [B, W, ...]`` where they are of drafts."""
        draft = torch.arange(others.shape[1]) < self.length[:, None] - 1
        return torch.where(draft[..., None], of_drafts, others)

    def last_made(self, column: Tensor, verified: Verified) -> Tensor:
        """Entries [B, ...] of ``column [B, >= W - 1, ...]`` at the last transition made; where
        that is the target's own (no draft), those of another transition.
        """
        at = (verified.advance.long() - 1).clamp(max=column.shape[1] - 1)
        return column[torch.arange(len(at)), at]

    def repaired(self, noise: Callable[[Verified], Tensor]) -> Verified:
        """Verified, but a rejected draft becomes the target's mean plus ``noise [B, ...]``."""
        out = verify_window(*self)
        rejected = (out.advance < self.length)[:, None]
        state = self.last_made(self.target_means, out) + noise(out)
        return out._replace(state=torch.where(rejected, state, out.state))


def always_accepts(w: Window) -> Verified:
    own = torch.cat([w.draft_means, w.target_means[:, -1:]], dim=1)
    return verify_window(*w._replace(target_means=w.drafted(own, w.target_means)))


def does_not_reflect(w: Window) -> Verified:
    """A rejected draft becomes the target's mean plus its own, unmirrored noise."""
    return w.repaired(lambda out: w.last_made(w.states[:, 1:] - w.draft_means, out))


def draws_afresh(w: Window) -> Verified:
    """A rejected draft becomes an independent draw from the target."""
    return w.repaired(lambda out: w.last_made(w.sigma, out)[:, None] * w.noise)


def wrong_sign(w: Window) -> Verified:
    """The inner product in the ratio has the wrong sign: decisions see the mirrored noise."""

    def reflected(out: Verified) -> Tensor:
        shift = w.last_made(w.draft_means - w.target_means[:, :-1], out)
        e = shift / shift.norm(dim=1, keepdim=True)
        noise = w.last_made(w.states[:, 1:] - w.draft_means, out)
        return noise - 2 * (noise * e).sum(1, keepdim=True) * e

    mirrored = torch.cat([w.states[:, :1], 2 * w.draft_means - w.states[:, 1:]], dim=1)
    return w._replace(states=mirrored).repaired(reflected)


def means_for_sums(w: Window) -> Verified:
    """Averages over the dimensions in place of sums: every log-ratio is divided by D."""
    softened = (1 - (1 - w.uniforms) ** w.states.shape[2]).clamp(max=1 - 2**-24)
    return verify_window(*w._replace(uniforms=softened))


def noise_reused(w: Window) -> Verified:
    """The transition from the target reuses the noise of the window's last draft."""
    z = (w.states[:, 1:] - w.draft_means) / w.sigma[:, :-1, None]
    last = (w.length.long() - 2).clamp(min=0)
    reused = torch.where(w.length[:, None] > 1, z[torch.arange(len(z)), last], w.noise)
    return verify_window(*w._replace(noise=reused))


def off_by_one(w: Window) -> Verified:
    """Drafts are judged by the target's mean of the row before theirs."""
    before = torch.cat([w.target_means[:, :1], w.target_means[:, :-1]], dim=1)
    return verify_window(*w._replace(target_means=w.drafted(before, w.target_means)))


def planted(bug: Callable[[Window], Verified]) -> Callable[..., Any]:
    """In place of ``verify_window``."""

    def verify(*given: Any, **verifier: Any) -> Verified:
        return bug(Window(*given)) if given[1].shape[1] else verify_window(*given, **verifier)

    return verify
