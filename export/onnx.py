"""Tracing graphs to ONNX, with one file of weights for all of them."""

from __future__ import annotations

import hashlib
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn

from free.engines.interface import Contract
from free.files import write_atomic, writing

#: The newest operator set whose graphs TensorRT-RTX builds in every precision.
OPSET = 20

#: Tensors smaller than this stay in the graph; shapes and the like must be found there.
_SMALL = 1024
_ALIGNMENT = 64


def require_onnx() -> None:
    """Raise an ImportError that names the extra unless what export needs is installed."""
    try:
        import onnx  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise ImportError(f"export needs {error.name}: pip install 'free-dit[onnx]'") from error


class WeightsFile:
    """A file that graphs share, with each distinct tensor once; to be used by ``with``.

    Parameters
    ----------
    path : Path
        Beside the graphs, which refer to it by its name. An earlier file is overwritten.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = path.open("wb")
        self._spans: dict[tuple[str, bytes], tuple[int, int]] = {}

    def externalize(self, model: Any) -> None:
        """Move the large tensors of an ``onnx_ir.Model`` into the file."""
        import onnx_ir as ir

        for value in model.graph.initializers.values():
            tensor = value.const_value
            if tensor is None or tensor.nbytes < _SMALL:
                continue
            offset, length = self._span(str(tensor.dtype), tensor.tobytes())
            value.const_value = ir.ExternalTensor(
                self.path.name,
                offset,
                length,
                tensor.dtype,
                shape=tensor.shape,
                name=value.name,
                base_dir=self.path.parent,
            )

    def _span(self, dtype: str, content: bytes) -> tuple[int, int]:
        """Offset and length of a tensor, written now if it is not in the file yet."""
        key = (dtype, hashlib.sha256(content).digest())
        if key not in self._spans:
            with writing(self.path):
                self._file.write(b"\0" * (-self._file.tell() % _ALIGNMENT))
                self._spans[key] = (self._file.tell(), len(content))
                self._file.write(content)
        return self._spans[key]

    def __enter__(self) -> WeightsFile:
        return self

    def __exit__(self, *error: object) -> None:
        with writing(self.path):
            self._file.close()


def export_graph(graph: nn.Module, contract: Contract, path: Path, weights: WeightsFile) -> None:
    """Trace ``graph`` and write it as ONNX.

    Parameters
    ----------
    graph : nn.Module
        From :mod:`export.graphs`; its arguments are named as the contract's inputs.
    contract : Contract
    path : Path
        Of the ``.onnx`` file, in the folder of ``weights``.
    weights : WeightsFile
    """
    import onnx_ir as ir

    # Sizes of 1 would be taken for constants, equal ones for one axis.
    sizes = {axis: 3 + 2 * i for i, axis in enumerate(contract.axes)}
    inputs = contract.sample_inputs(sizes)
    # Ranges are the contract's to check: here an axis is just not a constant.
    shapes = {
        spec.name: {
            i: torch.export.Dim.DYNAMIC for i, axis in enumerate(spec.shape) if axis in sizes
        }
        for spec in contract.inputs
    }
    # Autocast would put other types into the graph than the contract says.
    with torch.no_grad(), torch.autocast("cpu", enabled=False), _quiet():
        program = torch.onnx.export(
            graph.eval(),
            kwargs=inputs,
            input_names=[spec.name for spec in contract.inputs],
            output_names=[spec.name for spec in contract.outputs],
            dynamic_shapes=shapes,
            dynamo=True,
            opset_version=OPSET,
            optimize=True,
            verbose=False,
        )
    assert program is not None
    _name_axes(program.model, contract)
    weights.externalize(program.model)
    write_atomic(path, lambda temporary: ir.save(program.model, temporary))


def _name_axes(model: Any, contract: Contract) -> None:
    """Give the model's own inputs and outputs the contract's names of axes."""
    import onnx_ir as ir

    for values, specs in (
        (model.graph.inputs, contract.inputs),
        (model.graph.outputs, contract.outputs),
    ):
        for value, spec in zip(values, specs, strict=True):
            if value.name != spec.name:
                raise RuntimeError(f"{contract.graph}: {spec.name} was traced as {value.name}")
            value.shape = ir.Shape(spec.shape)


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence the exporter's notes on packages that are not needed, and on its own internals."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
