"""What other processes disturb is noticed, and thrown away where enough is left."""

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from free.bench import timed, timing


def _played(samples: list[tuple[float, float]]) -> Callable[[Callable[[], Any], int], Any]:
    """In place of the clock: seconds, and those of other processes."""
    left: Iterator[tuple[float, float]] = iter(samples)

    def sample(function: Callable[[], Any], calls: int) -> tuple[float, float]:
        function()
        return next(left)

    return sample


def test_disturbed_samples_are_discarded(monkeypatch: pytest.MonkeyPatch) -> None:
    played = [(9.0, 0.0), (1.0, 0.0), (5.0, 1.0), (2.0, 0.0), (3.0, 0.0)]
    monkeypatch.setattr(timing, "_sample", _played(played))
    told: list[bool] = []
    found = timed({"a": lambda: None}, 3, warmup=1, tell=lambda name, kept: told.append(kept))["a"]
    assert (found.median, found.minimum) == (2.0, 1.0)
    assert (found.samples, found.discarded, found.clean) == (3, 1, True)
    assert told == [False, True, False, True, True]


def test_a_machine_that_is_too_busy_is_said_to_be(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timing, "_sample", _played([(1.0, 0.5)] * 7 + [(1.0, 0.0)]))
    found = timed({"a": lambda: None}, 4, warmup=0, attempts=2)["a"]
    assert (found.samples, found.discarded, found.clean) == (8, 0, False)


def test_functions_take_turns() -> None:
    calls: list[str] = []
    functions = {name: lambda name=name: calls.append(name) for name in "ab"}
    timed(functions, 2, warmup=1, attempts=1)
    assert calls == ["a", "b"] * 3


@pytest.mark.skipif(not Path("/proc/stat").exists(), reason="only Linux tells of others")
def test_another_process_is_noticed() -> None:
    busy = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        time.sleep(0.2)  # it has started
        seconds, others = timing._sample(lambda: time.sleep(0.4), 1)
    finally:
        busy.kill()
        busy.wait()
    assert others > 0.05 * seconds
