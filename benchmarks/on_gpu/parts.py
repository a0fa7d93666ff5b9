"""What the parts of a speculative round take by themselves, each in a graph of its own.

The shapes are those of a round in the middle of a run, every window full. What is left of a
measured round is its rest: gathering rows, counting, waiting for the host. Parts of one graph may
overlap or find more in the cache than they do here, so a rest can be below 0.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch

from free import DiT, Schedule, ops
from free.drafters import DraftingBatch, FeatureDrafter
from free.models.guidance import Guidance
from free.models.output import TeacherRows
from free.reference.draft import RESPONSE
from free.rounds.noise import Purpose
from free.schedule.table import Table
from on_gpu.clock import Clock
from on_gpu.networks import guided

PARTS = ("drafter", "teacher", "coupling")


@torch.no_grad()
def parts(
    teacher: DiT,
    drafter: FeatureDrafter,
    schedule: Schedule,
    guidance: tuple[float, int | None],
    batch: int,
    window: int,
    sweeps: int | None,
) -> dict[str, Callable[[], Any]]:
    """The drafter's calls, the teacher's, and the coupling: noise, rolls, means, verification.

    Parameters
    ----------
    guidance : float, int or None
        Scale and channels.
    batch : int
    window : int
        At least 2.
    sweeps : int or None
        None: the drafter is called once a transition.
    """
    B, W, D = batch, window, torch.Size(teacher.sample_shape).numel()
    device = next(teacher.parameters()).device
    table, (call, guide) = Table.of(schedule, device), guided(teacher, *guidance)
    drafter = drafter.begin(DraftingBatch(table, guide))
    middle = torch.arange(W, device=device) + len(schedule) // 2
    k = middle.clamp(1, len(schedule) - 2).repeat(B)
    x = torch.randn(B * W, *teacher.sample_shape, device=device)
    y = torch.arange(B, device=device).repeat_interleave(W) % teacher.num_classes
    out = call(x, table.timesteps[k], y)
    said = (x, table.timesteps[k], y) if guide is None else guide.expand(x, table.timesteps[k], y)
    eps = teacher(*said).eps
    rows = torch.arange(B * W, device=device).view(B, W)

    # The network alone, as of the teacher: what it is given is made ready in the rest.
    drafted = (rows[:, :1] if sweeps is None else rows[:, : W - 1]).flatten()
    feature = drafter.carry_of_change(TeacherRows(*out, x, k), drafted)
    seen, t, labels = x[drafted], table.timesteps[k[drafted]], y[drafted]
    if guide is not None:
        seen, t, labels = guide.expand(seen, t, labels)
        feature = feature.flatten(0, 1)
    asked = (seen, torch.randn_like(seen), t, drafter.teacher.label_embedding(labels), feature)
    calls = W - 1 if sweeps is None else sweeps

    def draft() -> None:
        for _ in range(calls):
            drafter.network(*asked)

    return {
        "drafter": draft,
        "teacher": lambda: teacher(*said),
        "coupling": _coupling(table, B, W, D, sweeps, x, eps, k, guide),
    }


def _coupling(
    table: Table,
    B: int,
    W: int,
    D: int,
    sweeps: int | None,
    x: torch.Tensor,
    eps: torch.Tensor,
    k: torch.Tensor,
    guide: Guidance | None,
) -> Callable[[], Any]:
    """The ops of a round, with the arguments that they have there."""
    known = torch.full((B,), W, device=x.device)
    none, length = torch.zeros_like(known), known.int()
    states = x.view(B * W, D)
    past = {
        "past_x": states,
        "past_guess": torch.randn_like(states),
        "row": torch.arange(B * W, device=x.device).view(B, W),
        "known": known,
        "source": RESPONSE,
        # No evidence yet; responses of at most 1.
        "dot": torch.zeros(B, device=x.device),
        "square": torch.zeros(B, device=x.device),
    }
    first, start = states.view(B, W, D)[:, 0].contiguous(), k.view(B, W)[:, 0].contiguous()
    seeds = torch.arange(B, device=x.device)
    words = {"purpose": int(Purpose.TRANSITION), "decision": int(Purpose.DECISION)}
    steps = len(table.sigma)
    # Rolled from the teacher's guesses, then from the drafter's, which has a say in all.
    change = torch.randn(B, W - 1, D, device=x.device)
    spans = [(j, j + 1) for j in range(W - 1)] if sweeps is None else [(0, W - 1)] * sweeps
    scale = (
        {} if guide is None else {"cfg_scale": guide.scale, "cfg_channels": guide.count(x.shape[1])}
    )

    def couple() -> None:
        z = ops.window_noise(seeds, start, None, known, first, width=W, steps=steps, **words)
        begun = ops.first_guesses(
            first, start, **past, columns=table.columns, drafts=W - 1, noise=z.noise
        )
        roll = partial(
            ops.roll_window_,
            begun.states,
            begun.means,
            begun.guesses,
            z.noise,
            begun.intercept,
            begun.slope,
            coefficients=begun.coefficients,
        )
        for j, end in spans:
            roll(change=change, settled=none, says="change", first=j, end=end)
        # Where the network has variance channels besides, its eps has gaps.
        target = ops.target_means(x, eps.contiguous(), k, table.columns, **scale).means
        verified = ops.verify_window(
            begun.states,
            begun.means,
            target.view(B, W, D),
            begun.coefficients[3],
            length,
            z.uniforms,
            z.last,
        )
        ops.advance_samples_(
            verified.state,
            first,
            start,
            start,
            wanted=known,
            length=length,
            advance=verified.advance,
            accepted=verified.accepted,
            width=W,
            discarded=True,
        )

    return couple


def breakdown(
    clock: Clock, work: dict[str, Callable[[], Any]], round_seconds: float
) -> dict[str, Any]:
    """Seconds of a round by part, with the ``rest``, and whether in graphs; shares of the round."""
    seconds, how = {}, {}
    for name, part in work.items():
        time = clock.replayed(part)
        how[name] = time if isinstance(time, str) else "graph"
        seconds[name] = (clock.called(part) if isinstance(time, str) else time).median
    return shares(seconds, round_seconds) | {"how": how}


def shares(seconds: dict[str, float], round_seconds: float) -> dict[str, Any]:
    """With the rest of the round, and each over the round; ``not_networks`` is what neither
    drafter nor teacher takes.
    """
    whole = seconds | {"rest": round_seconds - sum(seconds.values())}
    networks = seconds["drafter"] + seconds["teacher"]
    return {
        "round": round_seconds,
        "seconds": whole,
        "share": {name: part / round_seconds for name, part in whole.items()},
        "not_networks": 1.0 - networks / round_seconds,
    }
