"""Mistakes of verifiers, planted around the ops, and the windows that these see."""

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from free.ops import Verified, VerifiedRelaxed, verify_window, verify_window_relaxed
from tests import windows
from tests.arguments import arguments

verify_block = partial(verify_window, verifier="block")


class Window(windows.Window):
    """The arguments of ``verify_window``, and parts of them."""

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


#: What any of them gets wrong shows in a window of one draft, but for the last.
MISTAKES = [
    always_accepts,
    does_not_reflect,
    draws_afresh,
    wrong_sign,
    means_for_sums,
    noise_reused,
    off_by_one,
]


def planted(bug: Callable[[Window], Verified]) -> Callable[..., Any]:
    """In place of ``verify_window``."""

    def verify(*given: Any, **verifier: Any) -> Verified:
        return bug(Window(*given)) if given[1].shape[1] else verify_window(*given, **verifier)

    return verify


# --- block verification --------------------------------------------------------------------------

#: A uniform that fails, unless a draft stands for certain.
FAILS = 1 - 2**-24


def at(column: Tensor, j: Tensor) -> Tensor:
    """Entries [B, ...] of ``column [B, n, ...]`` at ``j [B]``, or at the last."""
    return column[torch.arange(len(j)), j.clamp(max=column.shape[1] - 1)]


def ends_after(w: Window, drafts: Tensor, uniforms: Tensor) -> Verified:
    """Verified with at most one more than ``drafts [B]`` drafts, and that one cannot stand."""
    e = w.target_means[:, :-1] - w.draft_means
    e = e / e.norm(dim=2, keepdim=True)
    hopeless = w.draft_means - 20 * w.sigma[:, :-1, None] * e
    last = torch.arange(1, w.states.shape[1]) == drafts[:, None] + 1
    states = torch.where(last[..., None], hopeless, w.states[:, 1:])
    states = torch.cat([w.states[:, :1], states], dim=1)
    length = w.length.minimum(drafts + 2).int()
    return verify_block(*w._replace(states=states, length=length, uniforms=uniforms))


def stops_at_first_failure(w: Window) -> Verified:
    """The drafts before the first failure stand, not those before the last success."""
    step, stands = torch.arange(w.uniforms.shape[1]), []
    for j in step:
        alone = torch.where(step == j, w.uniforms, FAILS)
        verified = ends_after(w, torch.full_like(w.length, int(j) + 1), alone)
        stands.append(verified.accepted == j + 1)
    count = torch.stack(stands, dim=1).long().cumprod(1).sum(1)
    return ends_after(w, count, torch.where(step == count[:, None] - 1, 0.0, FAILS))


def whole_target(w: Window) -> Verified:
    """The residual is of the whole target, not of the share left over: as of a first draft."""
    out = verify_block(*w)
    j = out.accepted.long()
    x, m, sigma = (
        torch.stack([at(column, j), at(column, j + 1)], dim=1)
        for column in (w.states, w.target_means, w.sigma)
    )
    uniforms, length = torch.full_like(w.uniforms[:, :1], FAILS), torch.full_like(w.length, 2)
    first = Window(x, at(w.draft_means, j)[:, None], m, sigma, length, uniforms, w.noise)
    state = ends_after(first, torch.zeros_like(length), uniforms).state
    return out._replace(state=torch.where((out.advance < w.length)[:, None], state, out.state))


def one_uniform(w: Window) -> Verified:
    """All decisions of a window look at the same uniform."""
    return verify_block(*w._replace(uniforms=w.uniforms[:, :1].expand_as(w.uniforms).contiguous()))


def reuses_draft(w: Window) -> Verified:
    """The residual is made of the draft's own noise, whose part along e is its uniform then."""
    out = verify_block(*w)
    z = at((w.states[:, 1:] - w.draft_means) / w.sigma[:, :-1, None], out.accepted.long())
    noise = torch.where((out.advance < w.length)[:, None], z, w.noise)
    return verify_block(*w._replace(noise=noise))


MISTAKES_OF_BLOCKS = [whole_target, stops_at_first_failure, one_uniform, reuses_draft]

# --- relaxed verification ------------------------------------------------------------------------


class Relaxed(arguments("verify_window_relaxed")):
    def ratios(self) -> tuple[Tensor, Tensor]:
        """Log ratios and uncertainties of all drafts, [B, W - 1]."""
        scale = self.sigma[:, :-1, None]
        z = (self.states[:, 1:] - self.draft_means) / scale
        shift = (self.draft_means - self.target_means[:, :-1]) / scale
        u = shift.norm(dim=2) if self.uncertainty is None else self.uncertainty.clamp(min=0)
        return (-(z * shift).sum(2) - shift.square().sum(2) / 2).double(), u

    def relaxed(self) -> tuple[Tensor, Tensor]:
        """Log ratios, and the relaxed ones without a limit."""
        r, u = self.ratios()
        slack = self.strength * u
        return r, r / (1 + slack) if self.rule == "temper" else r + slack


def exactly(w: Relaxed) -> VerifiedRelaxed:
    """Without a mistake."""
    return verify_window_relaxed(**w._asdict())


def negative_bound(w: Relaxed) -> VerifiedRelaxed:
    """The bound adds up ``a - a'``."""
    out = exactly(w._replace(spent=w.spent.abs()))
    return out._replace(bound=w.spent - (out.bound - w.spent.abs()))


def no_clip(w: Relaxed) -> VerifiedRelaxed:
    """The ratio of what the target prefers is relaxed too, and probabilities are not cut at 1."""
    out, (r, relaxed) = exactly(w), w.relaxed()
    gain = torch.where(out.log_ratio.isnan(), 0.0, relaxed.exp() - r.exp())
    return out._replace(bound=w.spent + gain.sum(1))


def sees_uniform(w: Relaxed) -> VerifiedRelaxed:
    """Only what would be rejected is relaxed: the uncertainty knows the draft's own uniform."""
    r, u = w.ratios()
    u = torch.where(torch.log1p(-w.uniforms) > r, u, 0.0)
    return exactly(w._replace(uncertainty=u.contiguous()))


def no_mirror(w: Relaxed) -> VerifiedRelaxed:
    """The density forgets the mirror image, from where the relaxed mass was taken."""
    out, (r, relaxed) = exactly(w), w.relaxed()
    stands = torch.arange(r.shape[1]) < out.accepted[:, None]
    raised = torch.where(stands & (r < 0), relaxed.clamp(max=0) - r, 0.0)
    return out._replace(log_likelihood=raised.sum(1))


def one_too_late(w: Relaxed) -> VerifiedRelaxed:
    """The budget is held against what was spent before the window, which itself may pass it."""
    free, exact = (exactly(w._replace(budget=budget)) for budget in (math.inf, 0.0))
    pays = w.spent < w.budget
    parts = zip(free, exact, strict=True)
    return VerifiedRelaxed(
        *(torch.where(pays.view(-1, *[1] * (f.dim() - 1)), f, e) for f, e in parts)
    )


def planted_relaxed(bug: Callable[[Relaxed], VerifiedRelaxed]) -> Callable[..., VerifiedRelaxed]:
    """In place of ``verify_window_relaxed``."""
    return lambda *given, **named: bug(Relaxed(*given, **named))
