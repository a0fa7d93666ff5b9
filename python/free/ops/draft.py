"""A window before the drafter is asked: its noise, and what the teacher's last call says of it."""

from __future__ import annotations

from free import reference
from free.ops.operator import operator
from free.reference.draft import FirstGuesses, WindowNoise

__all__ = ["FirstGuesses", "WindowNoise", "first_guesses", "roll_window_", "window_noise"]

window_noise = operator(reference.window_noise, WindowNoise)
first_guesses = operator(reference.first_guesses, FirstGuesses)
roll_window_ = operator(reference.roll_window_)
