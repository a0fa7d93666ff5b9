"""The figure of the example: success by speed, plain and speculated, and an episode as flown."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from examples.policy.act import Policy
from examples.policy.expert import STEPS_A_SECOND
from examples.policy.flights import path_of

_PLAIN, _FREE = "tab:gray", "tab:blue"


def draw(policies: dict[str, Any], policy: Policy, path: Path, seed: int) -> None:
    """Draw the figures of ``evaluate``, and fly one more episode for the picture of it.

    Parameters
    ----------
    policies : dict
        By network, ``flown`` and ``timed`` as :mod:`examples.policy.evaluate` writes them.
    policy : Policy
        Who flies.
    path : Path
        Of the PNG.
    seed : int
        Of the episode.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError("the figure needs matplotlib: pip install 'free-dit[train]'") from error
    figure = Figure(figsize=(5 * (len(policies) + 1), 4.4), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(1, len(policies) + 1, squeeze=False)[0]
    for axis, (name, found) in zip(axes, policies.items(), strict=False):
        _curves(axis, name, found)
    _episode(axes[-1], policy, seed)
    figure.savefig(path, dpi=110)


def _curves(axis: Any, name: str, found: dict[str, Any]) -> None:
    """Success over chunks a second; a marker is a number of steps.

    Speculated samplers have the success of the plain ones, whose law is theirs.
    """
    from matplotlib.ticker import LogLocator, NullFormatter

    flown, timed = found["flown"], found["timed"]["samplers"]
    for suffix, color, label in (("", _PLAIN, "plain"), (", FREE auto", _FREE, "FREE, same law")):
        arms = [arm for arm in flown if arm.startswith("DDPM") and "," not in arm]
        arms = [arm for arm in arms if arm + suffix in timed]
        speeds = [timed[arm + suffix]["chunks_a_second"] for arm in arms]
        success = [100 * flown[arm]["success"] for arm in arms]
        axis.plot(speeds, success, "o-", color=color, label=label)
        for arm, speed, share in zip(arms, speeds, success, strict=True):
            axis.annotate(
                arm.removeprefix("DDPM "), (speed, share), (0, 6), textcoords="offset points",
                color=color, ha="center",
            )  # fmt: skip
        low, high = zip(*(flown[arm]["success_interval"] for arm in arms), strict=True)
        if color == _PLAIN:
            axis.vlines(speeds, 100 * np.array(low), 100 * np.array(high), color=color, alpha=0.4)
    if "DDIM 10" in flown and "DDIM 10" in timed:
        at = timed["DDIM 10"]["chunks_a_second"], 100 * flown["DDIM 10"]["success"]
        axis.plot(*at, "s", color="tab:orange", label="DDIM 10")
    axis.set(title=name, xlabel="chunks a second, one at a time", ylabel="success, %", xscale="log")
    axis.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.xaxis.set_major_formatter("{x:g}")
    axis.xaxis.set_minor_formatter(NullFormatter())
    axis.set_ylim(min(axis.get_ylim()[0], 80), 103)
    axis.grid(alpha=0.3)
    axis.legend(loc="lower left")


def _episode(axis: Any, policy: Policy, seed: int) -> None:
    """The path of one episode: where it was, how it leant, and when its engine burnt."""
    seen, actions, ground = path_of(policy, seed)
    axis.fill_between(*zip(*sorted(ground), strict=True), -0.4, color="0.75", lw=0)
    axis.plot(seen[:, 0], seen[:, 1], color=_FREE, lw=1)
    burning = actions[:, 0] > 0
    axis.scatter(*seen[burning, :2].T, s=8, color="tab:red", label="main engine", zorder=3)
    for x, y, angle in seen[:: STEPS_A_SECOND // 2, [0, 1, 4]]:
        # The hull and its legs, in the lander's own proportions; pictures are wider than high.
        body = np.array(
            [
                (-0.06, -0.06),
                (-0.04, 0),
                (-0.03, 0.04),
                (0.03, 0.04),
                (0.04, 0),
                (-0.04, 0),
                (0.04, 0),
                (0.06, -0.06),
            ]
        )
        turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
        axis.plot(*(body @ turn * [1, 1.5] + [x, y]).T, color="k", lw=1)
    # A place is the hull's; standing, it is at height 0.
    axis.plot([-0.2, 0.2], [-0.094, -0.094], color="tab:green", lw=3, label="pad")
    axis.set(title="an episode, a shape each half second", xlim=(-1, 1), ylim=(-0.2, 1.6))
    axis.set(xlabel="place", ylabel="height")
    axis.legend(loc="upper right")
