"""What a section is given: the device, the time that is left, and where it says what went wrong."""

from __future__ import annotations

import argparse
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch

from on_gpu.clock import Clock, first_line


class Bench:
    """A run of the benchmark.

    Parameters
    ----------
    device : torch.device
    options : argparse.Namespace
        Of the command: ``small``, ``minutes``, and what single sections ask for.
    now : callable
        Seconds; another clock for tests.

    Attributes
    ----------
    record : dict
        What is found, by section.
    left_out : list of str
        What the section at hand did not start, because its time was up.
    errors : list of str
        What went wrong in it.
    """

    def __init__(
        self,
        device: torch.device,
        options: argparse.Namespace,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self.device = device
        self.options = options
        self.small: bool = options.small
        self.record: dict[str, dict[str, Any]] = {}
        self.left_out: list[str] = []
        self.errors: list[str] = []
        self._now = now
        self._end = self._until = now() + 60.0 * options.minutes
        self._given = 0.0

    def clock(self, samples: int = 10, sample_seconds: float = 4e-3) -> Clock:
        """A clock; of a single sample where shapes are small."""
        if self.small:
            return Clock(self.device, samples=1, sample_seconds=0.0)
        return Clock(self.device, samples, sample_seconds)

    def section(self, name: str, share: float) -> dict[str, Any]:
        """The record of a section that begins, and has this share of the time that is left."""
        self.left_out, self.errors = [], []
        self.record[name] = {"left_out": self.left_out, "errors": self.errors}
        self._given = share * max(self._end - self._now(), 0.0)
        self._until = self._now() + self._given
        return self.record[name]

    @property
    def left(self) -> float:
        """Seconds of the section."""
        return max(self._until - self._now(), 0.0)

    def allows(self, what: str, reserve: float = 0.0) -> bool:
        """Whether there is time to start something; if not, it is written down as left out.

        ``reserve`` is the part of the section's time that must remain for other things.
        """
        if self.left > reserve * self._given:
            return True
        self.left_out.append(what)
        return False

    @contextmanager
    def attempt(self, what: str) -> Iterator[None]:
        """Go on with the rest if this fails, and say so: there may be no other hour on the GPU."""
        try:
            yield
        except Exception as error:
            traceback.print_exc()
            self.errors.append(f"{what}: {type(error).__name__}: {first_line(error)}")
