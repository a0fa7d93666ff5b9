"""ParaDiGMS, the sliding window of Picard iterations, to compare with.

For laws without noise, as published (Shih et al., "Parallel Sampling of Diffusion Models", NeurIPS
2023, Algorithm 1): all states of a window start as the last one known, each iteration asks the
network about all of them in one call and adds up its drifts, and the window moves on over the
states that have changed by less than the tolerance.
"""

from __future__ import annotations

import time
from typing import NamedTuple

import torch
from torch import Tensor

from free.arguments import as_integer, as_number
from free.models.output import Teacher
from free.rounds.target import Target, guidance_of
from free.sampling.request import Labels, Seeds, check_request
from free.schedule.schedule import Schedule
from free.schedule.table import Table


class Iterated(NamedTuple):
    """Samples of :func:`paradigms`, and what they took.

    Attributes
    ----------
    samples : Tensor, shape [B, ...], float32
    rounds_by_sample : list of int, length B
        Iterations of each sample; all that are unfinished share the network's calls.
    rows : int
        States that the network was asked about, without the second ones of guidance.
    seconds : float
    """

    samples: Tensor
    rounds_by_sample: list[int]
    rows: int
    seconds: float


@torch.no_grad()
def paradigms(
    teacher: Teacher,
    schedule: Schedule,
    labels: Labels,
    seed: Seeds = 0,
    *,
    window: int,
    tolerance: float,
    cfg_scale: float = 1.0,
) -> Iterated:
    """Sample a schedule without noise by sliding windows of Picard iterations.

    Parameters
    ----------
    teacher, schedule, labels, seed, cfg_scale
        As :class:`free.SpeculativeSampler` and its ``sample`` take them, without a history.
    window : int
        States of a window, and so the rows of a call, >= 1.
    tolerance : float
        A state stands if it changes by no more, as a root mean square over its elements, >= 0. (The
        paper has its square, in units of the posterior's variance, which a law without noise has
        none of; here it is in the states' own units, as that of the verifier ``"tolerance"``.)

    Raises
    ------
    ValueError
        If an argument is out of its range, or the schedule has noise or a history.
    """
    window = as_integer(window, "window must be an integer >= 1", 1)
    tolerance = as_number(tolerance, "tolerance must be a finite number >= 0", 0.0)
    if (schedule.sigma > 0).any():
        raise ValueError(f"schedule must have sigma = 0 everywhere, got {schedule.sigma.max():g}")
    y, _, x = check_request(teacher, labels, seed, None, schedule.start)
    table = Table.of(schedule, x.device)
    if table.history:
        raise ValueError("schedule must have no history, got one")
    target = Target(teacher, guidance_of(teacher, cfg_scale, None), table)
    began, N, B = time.perf_counter(), len(schedule), len(y)
    states = x[:, None].repeat(1, N + 1, *[1] * (x.dim() - 1))
    first = torch.zeros(B, dtype=torch.int64, device=x.device)
    rounds, rows = torch.zeros_like(first), 0
    while (going := (first < N).nonzero()[:, 0]).numel():
        k = first[going, None] + torch.arange(window, device=x.device)
        real, at = k < N, k.clamp(max=N - 1)
        here = states[going[:, None], at]
        asked, step = here[real], at[real]
        means = target(asked, step, y[going, None].expand_as(k)[real]).means
        rows += len(asked)
        drift = torch.zeros_like(here)
        drift[real] = means - asked
        new = here[:, :1] + drift.cumsum(1)
        change = (new - states[going[:, None], at + 1]).flatten(2).square().mean(2).sqrt()
        # The first always stands: the state before it is known.
        stands = ((change <= tolerance) & real).cumprod(1).sum(1)
        made = torch.minimum(stands + 1, real.sum(1))
        b, i = real.nonzero(as_tuple=True)
        states[going[b], k[real] + 1] = new[b, i]
        first[going] += made
        rounds[going] += 1
        # States that come into the window start as the last one in it.
        last = (k[:, -1] + 1).clamp(max=N)
        for sample, end in zip(going.tolist(), last.tolist(), strict=True):
            states[sample, end + 1 :] = states[sample, end]
    seconds = time.perf_counter() - began
    return Iterated(states[:, N].clone(), rounds.tolist(), rows, seconds)
