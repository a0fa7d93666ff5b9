"""Rounds as CUDA graphs: the host launches one and reads nothing in between."""

from free.graphs.capture import CaptureError, CudaGraphs
from free.graphs.plan import Graphing, Graphs
from free.graphs.stage import Way

__all__ = ["CaptureError", "CudaGraphs", "Graphing", "Graphs", "Way"]
