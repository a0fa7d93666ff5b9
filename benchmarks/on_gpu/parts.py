"""What the parts of a speculative round take by themselves, each in a graph of its own.

The shapes are those of a round in the middle of a run, every window full. What is left of a
measured round is its rest: gathering rows, counting, waiting for the host. Parts of one graph may
overlap or find more in the cache than they do here, so a rest can be below 0.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from free import DiT, Schedule, ops
from free.drafters import DraftingBatch, FeatureDrafter
from free.models.guidance import Guidance
from free.models.output import TeacherRows
from free.random import Purpose
from free.schedule import Table
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
    drafter.begin(DraftingBatch(table, guide))
    middle = torch.arange(W, device=device) + len(schedule) // 2
    k = middle.clamp(1, len(schedule) - 2).repeat(B)
    x = torch.randn(B * W, *teacher.sample_shape, device=device)
    y = torch.arange(B, device=device).repeat_interleave(W) % teacher.num_classes
    out = call(x, table.timesteps[k], y)
    said = (x, table.timesteps[k], y) if guide is None else guide.expand(x, table.timesteps[k], y)
    eps = teacher(*said).eps
    rows = torch.arange(B * W, device=device).view(B, W)

    drafted = (rows[:, :1] if sweeps is None else rows[:, : W - 1]).flatten()
    carry = drafter.carry_from(TeacherRows(*out, x, k), drafted)
    asked = (x[drafted], k[drafted], y[drafted], carry)
    calls = W - 1 if sweeps is None else sweeps

    def draft() -> None:
        for _ in range(calls):
            drafter.predict(*asked)

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
    seeds, rounds = torch.arange(B, device=x.device).repeat_interleave(W), torch.zeros_like(k)
    a, b, sigma = table.a[k], table.b[k], table.sigma[k].view(B, W)
    length = torch.full((B,), W, dtype=torch.int32, device=x.device)
    # Rolled from the teacher's guesses, then from the drafter's.
    spans = [W - 1, *([1] * (W - 1) if sweeps is None else [W - 1] * sweeps)]
    by_row = (a.view(B, W), b.view(B, W), sigma)
    coefficients = {P: [c[:, :P].contiguous() for c in by_row] for P in set(spans)}
    guess = {P: torch.randn(B, P, D, device=x.device) for P in set(spans)}
    states = x.view(B, W, D)
    first = states[:, 0].contiguous()
    scale = () if guide is None else (guide.scale, guide.count(x.shape[1]))

    def couple() -> None:
        z = ops.philox_normal(seeds, k, rounds, int(Purpose.TRANSITION), D).view(B, W, D)
        u = ops.philox_uniform(seeds, k, rounds, int(Purpose.DECISION), 1).view(B, W)
        noise = {P: z[:, :P].contiguous() for P in set(spans)}
        for P in spans:
            rolled = ops.roll_window(first, guess[P], noise[P], *coefficients[P])
        # Where the network has variance channels besides, its eps has gaps.
        means = ops.target_means(x, eps.contiguous(), a, b, *scale).means.view(B, W, D)
        drafts = rolled.means if sweeps is not None else guess[W - 1]
        judged = (states, drafts, means, sigma, length, u[:, :-1].contiguous())
        advance = ops.verify_window(*judged, z[:, -1].contiguous()).advance
        ops.recycled_rows(length, advance, W, True)

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
