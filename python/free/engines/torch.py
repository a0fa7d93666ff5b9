"""torch as an engine: eager, compiled, or replayed as CUDA graphs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor, nn

from free.engines.interface import Contract

MODES = ("eager", "compiled", "graphed")


class _Captured(NamedTuple):
    """A CUDA graph with the memory that it reads and writes."""

    graph: torch.cuda.CUDAGraph
    inputs: dict[str, Tensor]
    outputs: tuple[Tensor, ...]


class TorchSession:
    """A graph on torch.

    Parameters
    ----------
    graph : nn.Module
        Its arguments are named as the contract's inputs, its results are the outputs in order.
    contract : Contract
    mode : {"eager", "compiled", "graphed"}
        ``"graphed"`` captures a CUDA graph for each combination of sizes it meets.
    device : torch.device or str

    Raises
    ------
    ValueError
        If the mode is unknown, or ``"graphed"`` is asked for on a CPU.
    """

    def __init__(
        self,
        graph: nn.Module,
        contract: Contract,
        mode: str = "eager",
        device: torch.device | str = "cpu",
    ) -> None:
        if mode not in MODES:
            raise ValueError(f"mode must be one of {', '.join(MODES)}, got {mode!r}")
        self.contract = contract
        self.device = torch.device(device)
        if mode == "graphed" and self.device.type != "cuda":
            raise ValueError(f"mode graphed must run on cuda, got {self.device}")
        self._graph = graph.to(self.device).eval()
        self._call = torch.compile(self._graph) if mode == "compiled" else self._graph
        self._captured: dict[tuple[int, ...], _Captured] | None = {} if mode == "graphed" else None

    @torch.no_grad()
    def run(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Run the graph; see :class:`free.engines.interface.Session`."""
        with torch.autocast(self.device.type, enabled=False):  # its precisions are its own
            return self._run(inputs)

    def _run(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        sizes = self.contract.sizes(inputs)
        names = [spec.name for spec in self.contract.outputs]
        if self._captured is None:
            return dict(zip(names, self._call(**inputs), strict=True))
        key = tuple(sizes.values())
        if key not in self._captured:
            with torch.cuda.device(self.device):  # else its streams are another GPU's
                self._captured[key] = self._capture(inputs)
        captured = self._captured[key]
        for name, value in inputs.items():
            captured.inputs[name].copy_(value)
        captured.graph.replay()
        return {name: value.clone() for name, value in zip(names, captured.outputs, strict=True)}

    def _capture(self, inputs: Mapping[str, Tensor]) -> _Captured:
        own = {
            name: value.clone(memory_format=torch.contiguous_format)
            for name, value in inputs.items()
        }
        # Libraries choose their algorithms on first use, which must not be captured.
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(2):
                self._call(**own)
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            outputs = self._call(**own)
        return _Captured(graph, own, outputs)
