"""Episodes in closed loop: many at once, one call of the policy for all that still fly."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch

import free
from examples.policy.act import Policy
from examples.policy.expert import SOLVED, Array, make_lander, pilot

#: Chunks of an episode, at most; noise seeds of an episode begin where those before it end.
_MOST_CHUNKS = 1000


class Flights(NamedTuple):
    """What became of episodes.

    Attributes
    ----------
    returns, steps : ndarray, shape [episodes]
        Sum of rewards, and actions taken.
    report : Report or None
        Of all chunks, where a sampler of the package drew them.
    """

    returns: np.ndarray
    steps: np.ndarray
    report: free.Report | None

    @property
    def solved(self) -> np.ndarray:
        """Which returns count as a success, [episodes]."""
        return self.returns >= SOLVED


def fly(policy: Policy, seeds: Sequence[int]) -> Flights:
    """Fly an episode for each seed; with the same seeds, two policies begin at the same places.

    Noise follows from the seeds too, so that a speculated chunk is close to the plain one.
    """
    landers = [make_lander() for _ in seeds]
    history, execute = policy.config.history, policy.config.execute
    seen = [[lander.reset(seed=seed)[0]] * history for lander, seed in zip(landers, seeds)]  # noqa: B905
    returns, steps = np.zeros(len(seeds)), np.zeros(len(seeds), dtype=int)
    flying, reports, chunk = list(range(len(seeds))), [], 0
    while flying:
        observations = torch.from_numpy(np.stack([np.stack(seen[i]) for i in flying]))
        chunks = policy.plan(observations, [seeds[i] * _MOST_CHUNKS + chunk for i in flying])
        if policy.report is not None:
            reports.append(policy.report)
        still = []
        for i, actions in zip(flying, chunks.numpy(), strict=True):
            for action in actions[:execute]:
                observation, reward, ended, late, _ = landers[i].step(action)
                seen[i] = [*seen[i][1:], observation]
                returns[i] += float(reward)
                steps[i] += 1
                if ended or late:
                    break
            else:
                still.append(i)
        flying, chunk = still, chunk + 1
    for lander in landers:
        lander.close()
    return Flights(returns, steps, free.Report.merge(reports) if reports else None)


def seen_by_pilot(
    requests: int, history: int, flights: int = 4, seed: int = 2_000_000
) -> torch.Tensor:
    """Observations of flights of the pilot, evenly spaced: [requests, history, numbers].

    A chunk is asked for at each of them, whoever flies, so that policies are timed, and their laws
    compared, at the same ones.
    """
    lander, seen = make_lander(), []
    for episode in range(flights):
        observation, _ = lander.reset(seed=seed + episode)
        window, over = [observation] * history, False
        while not over:
            seen.append(np.stack(window))
            observation, _, ended, late, _ = lander.step(pilot(lander, observation))
            window, over = [*window[1:], observation], ended or late
    lander.close()
    at = ((np.arange(requests) + 0.5) / requests * len(seen)).astype(int)
    return torch.from_numpy(np.stack(seen)[at])


def path_of(policy: Policy, seed: int) -> tuple[Array, Array, list[tuple[float, float]]]:
    """One episode, action by action, as a loop with one lander runs it.

    Returns observations [n, 8], actions [n, 2], and the ground's outline in the same coordinates.
    """
    lander = make_lander()
    observation, _ = lander.reset(seed=seed)
    policy.reset(seed * _MOST_CHUNKS)
    observations, actions, over = [], [], False
    while not over:
        action = policy.act(observation)
        observations.append(observation)
        actions.append(action)
        observation, _, ended, late, _ = lander.step(action)
        over = ended or late
    ground = _outline(lander.unwrapped)
    lander.close()
    return np.stack(observations), np.stack(actions), ground


def _outline(lander: object) -> list[tuple[float, float]]:
    """Corners of the ground as an observation counts places: from the pad, in half widths."""
    from gymnasium.envs.box2d import lunar_lander as task

    half, high = task.VIEWPORT_W / task.SCALE / 2, task.VIEWPORT_H / task.SCALE / 2
    pad = lander.helipad_y + task.LEG_DOWN / task.SCALE  # type: ignore[attr-defined]
    corners: list[tuple[float, float]] = []
    for polygon in lander.sky_polys:  # type: ignore[attr-defined]
        corners += [((x - half) / half, (y - pad) / high) for x, y in polygon[:2]]
    return corners
