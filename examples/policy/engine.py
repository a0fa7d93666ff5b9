"""A denoiser on ONNX Runtime, as an engine of the package runs any graph."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from torch import Tensor

from examples.policy.networks import Denoiser
from free.engines.interface import Contract, Profile, TensorSpec
from free.engines.onnx import OnnxSession
from free.export.onnx import WeightsFile, export_graph, require_onnx

#: Rows of a call, at most.
MOST_ROWS = 4096


def export(network: Denoiser, folder: Path) -> Contract:
    """Write ``denoiser.onnx`` and its weights; returned is what the graph takes and gives."""
    require_onnx()
    config = network.config
    chunk = ("rows", config.horizon, config.actions)
    contract = Contract(
        "denoiser",
        inputs=(
            TensorSpec("x", "float32", chunk),
            TensorSpec("t", "int64", ("rows",), high=config.steps),
            TensorSpec("observations", "float32", ("rows", config.history, config.numbers)),
        ),
        outputs=(TensorSpec("eps", "float32", chunk),),
        axes={"rows": Profile(1, 16, MOST_ROWS)},
    )
    folder.mkdir(parents=True, exist_ok=True)
    with WeightsFile(folder / "weights.bin") as weights:
        export_graph(network, contract, folder / "denoiser.onnx", weights)
    return contract


def on_onnxruntime(
    network: Denoiser, folder: Path, threads: int | None = None
) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
    """The network as a function that ONNX Runtime computes; files are written into ``folder``.

    ``threads`` are by default as many as torch uses.
    """
    contract = export(network, folder)
    session = OnnxSession(folder / "denoiser.onnx", contract, threads=threads)

    def denoise(x: Tensor, t: Tensor, observations: Tensor) -> Tensor:
        return session.run({"x": x, "t": t, "observations": observations})["eps"]

    return denoise
