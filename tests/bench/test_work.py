"""The bar of a benchmark: what is left is known from the first job on, in seconds."""

import time

import pytest

from free.bench.work import WorkBar


def test_what_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])
    bar = WorkBar({"short": (3, 10), "long": (2, 250)}, shown=False)
    assert bar.remaining() == 0
    now[0] += 1.0
    bar.done("short")
    # 10 rows took 1 s: two short jobs are left, and two of 25 s if rows cost alike.
    assert bar.remaining() == pytest.approx(2 * 1 + 2 * 25)
    now[0] += 5.0
    bar.done("long")  # they do not
    assert bar.remaining() == pytest.approx(2 * 1 + 1 * 5)
    now[0] += 7.0
    bar.done("long", kept=False)  # to be done again, in the mean time of both
    assert bar.remaining() == pytest.approx(2 * 1 + 1 * 6)
    for _ in range(3):
        bar.done("short")
    bar.done("long")
    assert bar.remaining() == 0
    bar.close()
