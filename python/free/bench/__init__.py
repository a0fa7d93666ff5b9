"""Benchmarks: what samplers take and give, side by side, and where the time of a round goes."""

from free.bench.lines import Line, bench
from free.bench.phases import Profile, profiled
from free.bench.rows import ROWS, Row, chosen_rows
from free.bench.timing import Timing, timed

__all__ = ["ROWS", "Line", "Profile", "Row", "Timing", "bench", "chosen_rows", "profiled", "timed"]
