"""Exports without tracing, which takes seconds."""

from pathlib import Path
from typing import Any

import pytest
import torch

from free.engines.interface import Contract
from free.export import package
from free.export.onnx import WeightsFile


@pytest.fixture
def untraced(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Graphs are written as ``content``; writing fails at the graph that ``fail`` names."""
    plan: dict[str, Any] = {"fail": None, "content": "graph"}

    def export_graph(
        graph: torch.nn.Module, contract: Contract, path: Path, weights: WeightsFile
    ) -> None:
        if contract.graph == plan["fail"]:
            raise RuntimeError("the disk is full")
        path.write_text(plan["content"] + contract.graph)

    monkeypatch.setattr(package, "export_graph", export_graph)
    return plan
