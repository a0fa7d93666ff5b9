"""The task and who shows it: Gymnasium's continuous LunarLander, and the pilot of its package.

The package is imported here only, and only when an episode is flown.
"""

from __future__ import annotations

import os
import warnings
from typing import Any

import numpy as np
from numpy.typing import NDArray

#: Numbers of an observation: place, speed, angle, turning, and which legs touch the ground.
OBSERVATION = 8
#: Numbers of an action, each in -1 .. 1: the main engine, and those at the sides.
ACTION = 2
#: Physics steps, and so actions, of a second.
STEPS_A_SECOND = 50
#: Return from which the task counts as solved, as its package says.
SOLVED = 200.0

Array = NDArray[np.float32]


def _lander() -> Any:
    """The module of the task, or an ImportError that names the extra."""
    os.environ.setdefault("PYGAME_HIDE_SUPPORT_PROMPT", "1")
    try:
        with warnings.catch_warnings():
            # Box2D's bindings warn as they are imported, and crash where that is made an error.
            warnings.simplefilter("ignore")
            from gymnasium.envs.box2d import lunar_lander
    except ImportError as error:
        raise ImportError(
            f"this example needs {error.name or error}: pip install 'free-dit[policy]'"
        ) from error
    return lunar_lander


def make_lander() -> Any:
    """An environment with a time limit of 1,000 steps; two numbers are an action."""
    _lander()
    import gymnasium

    return gymnasium.make("LunarLander-v3", continuous=True)


def pilot(environment: Any, observation: Array) -> Array:
    """The action [2] that the package's scripted pilot takes."""
    return _lander().heuristic(environment.unwrapped, observation).astype(np.float32)
