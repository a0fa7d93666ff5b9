"""Rounds as CUDA graphs: the host launches one and reads nothing in between."""

from free.sampling.cuda_graphs.capture import CaptureError, CudaGraphs
from free.sampling.cuda_graphs.graphs import Graphing, Graphs

__all__ = ["CaptureError", "CudaGraphs", "Graphing", "Graphs"]
