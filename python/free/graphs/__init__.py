"""Rounds as CUDA graphs: the host launches one and reads nothing in between."""

from free.graphs.capture import CaptureError, captured
from free.graphs.plan import Graphing, Graphs
from free.graphs.stage import Way

__all__ = ["CaptureError", "Graphing", "Graphs", "Way", "captured"]
