"""What a run went through: its transitions, and how likely they were under the teacher's law.

Which drafts were proposed, and which of them fell, is not known here: a committed transition is a
draw from the target's Gaussian whatever was drafted, so its density is that of the target.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from free.rounds.state import Outcome


class Transitions(NamedTuple):
    """Transitions that a round has made: P of them, sample by sample, in order.

    Attributes
    ----------
    sample : Tensor, shape [P], int64
        Places in the batch of the round: ``samples.number[sample]`` are their owner's numbers.
    k : Tensor, shape [P], int64
        Which transitions of the schedule.
    state, next_state, mean : Tensor, shape [P, ...], float32
        From where, to where, and the target's mean: guided, clipped, with its history.
    sigma : Tensor, shape [P], float32
        The target's standard deviation; 0 where there is no noise, as in most last transitions.
    """

    sample: Tensor
    k: Tensor
    state: Tensor
    next_state: Tensor
    mean: Tensor
    sigma: Tensor

    @property
    def log_density(self) -> Tensor:
        """Log-densities of the transitions, [P], float64: :func:`log_density`."""
        return log_density(self.next_state, self.mean, self.sigma)


def committed_transitions(outcome: Outcome) -> Transitions:
    """List the transitions that a round has made, without those behind a rejection.

    A sample that wanted no row has none. Without a relaxation each is an exact draw from
    ``N(mean, sigma^2)``; under one, mean and sigma are the teacher's all the same.
    """
    draft, wanted = outcome.window.draft, outcome.window.wanted
    W = draft.k.shape[1]
    made = torch.where(wanted > 0, outcome.advance, 0)
    step = torch.arange(W, device=made.device)
    sample, i = (step < made[:, None]).nonzero(as_tuple=True)
    # The last one that a round makes leads to what verification drew, the others to drafts.
    after = torch.cat([draft.states[:, 1:], outcome.x[:, None]], dim=1)
    last = i + 1 == made[sample]
    return Transitions(
        sample,
        draft.k[sample, i],
        draft.states[sample, i],
        after[sample, torch.where(last, W - 1, i)],
        outcome.means[sample, i],
        outcome.sigma[sample, i],
    )


def log_density(x: Tensor, mean: Tensor, sigma: Tensor) -> Tensor:
    """Log-density of ``N(mean, sigma^2 I)``, summed over the dimensions of each row.

    Parameters
    ----------
    x, mean : Tensor, shape [P, ...]
    sigma : Tensor, shape [P]
        >= 0. A transition with 0 is deterministic: it has no density, and counts 0.

    Returns
    -------
    Tensor, shape [P], float64
        In nats; can be differentiated.
    """
    noisy = sigma > 0
    scale = torch.where(noisy, sigma, 1.0).double()
    offset = (x - mean).flatten(1)
    distance = torch.linalg.vector_norm(offset, dim=1, dtype=torch.float64) / scale
    volume = offset.shape[1] * (scale.log() + 0.5 * math.log(2 * math.pi))
    return torch.where(noisy, -0.5 * distance.square() - volume, 0.0)


class Trajectory(NamedTuple):
    """Every state of a run, and the log-density of every transition under the teacher's law.

    It takes ``4 B (N + 1) D`` bytes for the states, and ``12 B N`` for the rest.

    Attributes
    ----------
    states : Tensor, shape [B, N + 1, ...], float32
        From the initial noise to the samples; transition ``k`` leads from ``states[:, k]`` to
        ``states[:, k + 1]``.
    log_density : Tensor, shape [B, N], float64
        ``log N(states[:, k + 1]; mean, sigma^2 I)`` with the target's mean, guided and clipped as
        the law is: the sum over dimensions, in nats. 0 where sigma is 0: a transition without
        noise, as the last one mostly, leaves no choice.
    sigma : Tensor, shape [B, N], float32
        Standard deviations; they differ from sample to sample only under a variance of the state.
    timesteps : Tensor, shape [N], int64 or float64
        The schedule's: what the network was told at each transition.
    """

    states: Tensor
    log_density: Tensor
    sigma: Tensor
    timesteps: Tensor

    @property
    def mean_log_density(self) -> Tensor:
        """The log-density as a mean over dimensions, [B, N]."""
        return self.log_density / self.states[0, 0].numel()


class TrajectoryRecorder:
    """Fills a trajectory round by round, from ``x [B, ...]`` on, whose samples are numbered
    ``0 .. B - 1``. It is kept on ``device``; ``timesteps [N]`` are the schedule's.
    """

    def __init__(self, x: Tensor, timesteps: Tensor, device: torch.device) -> None:
        B, N = len(x), len(timesteps)
        states = torch.empty(B, N + 1, *x.shape[1:], dtype=torch.float32, device=device)
        states[:, 0] = x
        density = torch.zeros(B, N, dtype=torch.float64, device=device)
        sigma = torch.zeros(B, N, dtype=torch.float32, device=device)
        self.trajectory = Trajectory(states, density, sigma, timesteps.to(device))

    def record(self, number: Tensor, outcome: Outcome) -> None:
        """Keep what a round has made of the samples of these numbers [B']."""
        made, kept = committed_transitions(outcome), self.trajectory
        device = kept.states.device
        row, k = number[made.sample].to(device), made.k.to(device)
        kept.states[row, k + 1] = made.next_state.to(device)
        kept.log_density[row, k] = made.log_density.to(device)
        kept.sigma[row, k] = made.sigma.to(device)
