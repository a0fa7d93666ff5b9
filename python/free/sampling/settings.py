"""What a speculative sampler is asked to do, checked."""

from __future__ import annotations

import warnings
from typing import Any, NamedTuple

import numpy as np
import torch

from free.drafters.frozen import FrozenDrafter
from free.drafters.protocol import Drafter, what_came
from free.ops import VERIFIERS, WIDEST_ON_CUDA
from free.reference.decide import LOOKING_AHEAD
from free.reference.draft import SOURCES
from free.rounds.relaxation import check_relaxation
from free.rounds.tolerance import TOLERANCE, check_tolerance
from free.schedule.schedule import Schedule
from free.schedule.table import Table
from free.window import AutoWindow, FixedWindow, WindowRule

#: Noise of a transition, in units of its states' size, below which float32 rounds it to a few
#: values: ten spacings of numbers about 1.
FINEST = 1e-6


class Settings(NamedTuple):
    """What the arguments of :class:`free.SpeculativeSampler` stand for."""

    drafter: Drafter | None
    rule: WindowRule


def check_times(teacher: Any, schedule: Schedule) -> None:
    """Raise a ValueError for times of another kind than a :class:`free.DiT` is told.

    They would be taken for others, in silence. Of other teachers nothing is known.
    """
    prediction = getattr(getattr(teacher, "config", None), "prediction", None)
    first = schedule.timesteps[0]
    if prediction == "velocity" and first > 1:
        raise ValueError(
            "schedule must have times in 0..1 for a network that predicts a velocity, such as "
            f"Schedule.repa() or Schedule.flow(..., train_steps=1.0), got {first:g}"
        )
    if prediction == "epsilon" and first <= 1 and schedule.timesteps.dtype.kind == "f":
        raise ValueError(
            "schedule must have the timesteps of a training for a network that predicts noise, "
            f"got times in 0..1 from {first:g} on"
        )


def check_settings(
    teacher: Any,
    drafter: Any,
    schedule: Any,
    *,
    window: Any,
    verifier: str,
    sweeps: Any,
    recycle: Any,
    relaxation: Any = None,
    tolerance: Any = None,
) -> Settings:
    """Check the arguments of :class:`free.SpeculativeSampler`.

    Raises TypeError or ValueError naming the argument, what was expected and what came.
    """
    if not isinstance(schedule, Schedule):
        raise TypeError(f"schedule must be a Schedule, got {type(schedule).__name__}")
    if not callable(teacher):
        raise TypeError(f"teacher must be callable, got {type(teacher).__name__}")
    check_times(teacher, schedule)
    if isinstance(drafter, str) and drafter == "frozen":
        drafter = FrozenDrafter("image" if Table.of(schedule, "cpu").images else "eps")
    rule = _rule(window)
    speculates = rule.largest > 1
    if (speculates or drafter is not None) and (
        isinstance(drafter, type) or not isinstance(drafter, Drafter)
    ):
        raise TypeError(
            "drafter must have begin, predict and carry_from for window > 1, or be 'frozen', "
            f"got {what_came(drafter)}"
        )
    if hasattr(drafter, "change") and not hasattr(drafter, "carry_of_change"):
        raise TypeError("drafter must have carry_of_change where it has change, got change alone")
    if verifier not in (*VERIFIERS, TOLERANCE):
        expected = ", ".join(map(repr, (*VERIFIERS, TOLERANCE)))
        raise ValueError(f"verifier: expected one of {expected}, got {verifier!r}")
    check_tolerance(tolerance, schedule, verifier)
    if speculates and verifier != TOLERANCE and (schedule.sigma[:-1] == 0).any():
        raise ValueError(
            "schedule must have sigma > 0 before its last transition to be speculated, "
            f"got sigma = 0 at step {int((schedule.sigma[:-1] == 0).argmax())}: without noise "
            "nothing couples draft and target. Pass verifier='tolerance', tolerance=0.01 for "
            "samples within a tolerance of its own, or a schedule of so little noise that nobody "
            "sees it (stochasticity=0.01), which is sampled exactly; window=1 and "
            "SequentialSampler sample this one step by step"
        )
    if speculates and verifier != TOLERANCE:
        _warn_of_rounding(schedule)
    if sweeps == "auto" and isinstance(rule, FixedWindow):
        raise ValueError(f"sweeps must be None or an integer with window {window!r}, got 'auto'")
    if sweeps is not None and sweeps != "auto" and not _counts(sweeps):
        raise ValueError(f"sweeps must be None, 'auto' or an integer >= 1, got {sweeps!r}")
    if not isinstance(recycle, bool) and recycle not in SOURCES:
        raise ValueError(
            f"recycle must be True, False or one of {', '.join(map(repr, SOURCES))}, "
            f"got {recycle!r}"
        )
    if recycle is not False and verifier in LOOKING_AHEAD:
        raise ValueError(
            f"recycle must be False with verifier {verifier!r}, whose decisions look at later "
            f"drafts, so that their noise must not be used again; got {recycle!r}"
        )
    check_relaxation(relaxation, schedule, verifier)
    return Settings(drafter, rule)


def _warn_of_rounding(schedule: Schedule) -> None:
    """Warn where a noise is so little that float32's states cannot tell all of it."""
    size = np.hypot(schedule.signal, schedule.noise)[:-1]
    share = schedule.sigma[:-1] / np.where(size > 0, size, 1.0)
    if (share < FINEST).any():
        k = int(share.argmin())
        warnings.warn(
            f"schedule should have sigma >= {FINEST:g} of its states' size to be speculated in "
            f"float32, got {share[k]:.2g} at step {k}: the noise is rounded there, and so is its "
            "law; a larger stochasticity is exact",
            stacklevel=4,
        )


def largest_window(rule: WindowRule, steps: int, device: torch.device) -> int:
    """Rows of a window, at most, in a run of so many transitions on this device.

    Raises ValueError if they are more than the CUDA kernels verify; a :class:`free.AutoWindow`
    keeps to these.
    """
    largest = min(rule.largest, steps)
    if device.type != "cuda" or largest <= WIDEST_ON_CUDA:
        return largest
    if isinstance(rule, AutoWindow):
        return WIDEST_ON_CUDA
    raise ValueError(
        f"window must be of at most {WIDEST_ON_CUDA} rows on CUDA, got {rule.largest} for a run "
        f"of {steps} steps"
    )


def _rule(window: Any) -> WindowRule:
    if _counts(window):
        return FixedWindow(window)
    if isinstance(window, str) and window == "auto":
        return AutoWindow()
    if isinstance(window, WindowRule) and not isinstance(window, type):
        if not _counts(window.largest):
            raise ValueError(
                f"window must have an integer >= 1 as largest, got {window.largest!r} in {window!r}"
            )
        return window
    raise ValueError(f"window must be an integer >= 1, 'auto' or a WindowRule, got {window!r}")


def _counts(value: Any) -> bool:
    is_integer = isinstance(value, (int, np.integer)) and not isinstance(value, bool)
    return is_integer and bool(value >= 1)
