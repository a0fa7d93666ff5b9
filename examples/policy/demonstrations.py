"""What the policy learns from: chunks of the pilot's actions, and what it saw before them."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from examples.policy.expert import SOLVED, make_lander, pilot


class Demonstrations(NamedTuple):
    """Steps of many episodes.

    Attributes
    ----------
    observations : Tensor, shape [n, history, 8]
        The last ones, the newest at the end; at the beginning the first is repeated.
    actions : Tensor, shape [n, horizon, 2]
        The pilot's from that step on; after the end the last is repeated.
    returns : Tensor, shape [episodes]
        Of the episodes that were kept.
    """

    observations: Tensor
    actions: Tensor
    returns: Tensor


def record(
    episodes: int, *, history: int, horizon: int, noise: float = 0.2, seed: int = 0
) -> Demonstrations:
    """Let the pilot fly, and keep the episodes that end well.

    What is flown is disturbed by ``noise`` (standard deviation, different in each episode, at most
    this), what is kept is what the pilot wanted (DART, Laskey et al. 2017): so the policy also sees
    how one gets back to the path.
    """
    environment = make_lander()
    observations, actions, returns = [], [], []
    for episode in range(episodes):
        random = np.random.default_rng([seed, episode])
        spread = random.uniform(0, noise)
        observation, _ = environment.reset(seed=seed + episode)
        seen, wanted, total, over = [], [], 0.0, False
        while not over:
            action = pilot(environment, observation)
            seen.append(observation)
            wanted.append(action)
            flown = action + spread * random.standard_normal(action.shape)
            flown = np.clip(flown, -1, 1).astype(np.float32)
            observation, reward, ended, late, _ = environment.step(flown)
            total, over = total + float(reward), ended or late
        if total >= SOLVED:
            observations.append(_windows(np.stack(seen), history, before=True))
            actions.append(_windows(np.stack(wanted), horizon, before=False))
            returns.append(total)
    environment.close()
    if not returns:
        raise RuntimeError(f"none of {episodes} demonstrations reached a return of {SOLVED:g}")
    return Demonstrations(torch.cat(observations), torch.cat(actions), torch.tensor(returns))


def _windows(steps: np.ndarray, length: int, *, before: bool) -> Tensor:
    """[n, d] -> [n, length, d]: of each step those up to it, or from it on; ends are repeated."""
    offsets = np.arange(1 - length, 1) if before else np.arange(length)
    at = np.arange(len(steps))[:, None] + offsets
    return torch.from_numpy(steps[at.clip(0, len(steps) - 1)])
