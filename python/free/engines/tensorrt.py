"""TensorRT as an engine; TensorRT-RTX has nearly the same interface and builds without a GPU."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from free.engines.interface import Contract
from free.engines.tensorrt_file import ANY, BuiltEngine, engine_path, this_gpu

#: Modules by the names that we give them, which are those of the extras too.
FLAVOURS = {"tensorrt": "tensorrt", "tensorrt-rtx": "tensorrt_rtx"}

_ALIGNMENT = 256  # of what a CUDA allocation returns, which kernels may count on


def load_tensorrt(flavour: str) -> Any:
    """Import ``tensorrt`` or ``tensorrt_rtx``.

    Raises
    ------
    ValueError
        If there is no such flavour.
    ImportError
        If it is not installed, or its libraries cannot be loaded; names the extra.
    """
    if flavour not in FLAVOURS:
        raise ValueError(f"flavour must be one of {', '.join(FLAVOURS)}, got {flavour!r}")
    try:
        trt = importlib.import_module(FLAVOURS[flavour])
    except (ImportError, OSError) as error:
        raise ImportError(
            f"this engine needs {FLAVOURS[flavour]} and its libraries: "
            f"pip install 'free-dit[{flavour}]' ({error})"
        ) from error
    if not hasattr(trt, "Builder"):  # the registry's package without its libraries
        raise ImportError(
            f"this engine needs {FLAVOURS[flavour]} with its libraries, got only a stub: "
            f"pip install 'free-dit[{flavour}]' from NVIDIA's own registry"
        )
    return trt


class Log:
    """TensorRT's messages of errors, for that of an exception.

    Attributes
    ----------
    logger : ILogger
        To be given to TensorRT.
    errors : list of str
    """

    def __init__(self, trt: Any) -> None:
        self.errors: list[str] = []
        errors, worst = self.errors, (trt.ILogger.INTERNAL_ERROR, trt.ILogger.ERROR)

        def log(_: Any, severity: Any, message: str) -> None:
            if severity in worst:
                errors.append(message.strip())

        self.logger = type("Logger", (trt.ILogger,), {"log": log})()

    def __str__(self) -> str:
        return "; ".join(self.errors) or "TensorRT gave no reason"


def find_engine(onnx: Path, contract: Contract, flavour: str) -> Path:
    """Path of the engine that was built from a graph and that this GPU can run.

    Parameters
    ----------
    onnx : Path
        The graph; engines lie beside it.
    contract : Contract
    flavour : {"tensorrt", "tensorrt-rtx"}

    Raises
    ------
    ImportError
        If TensorRT is not installed.
    ValueError
        If there is none, or it is stale; says why.
    RuntimeError
        If there is no GPU.
    """
    version = load_tensorrt(flavour).__version__
    reasons = []
    for target in (this_gpu()[0], *([ANY] if flavour == "tensorrt-rtx" else [])):
        path = engine_path(onnx, flavour, target)
        if not path.is_file():
            reasons.append(f"there is no {path.name}")
            continue
        reason = BuiltEngine.read(path).unfit(path, contract, version)
        if reason is None:
            return path
        reasons.append(f"of {path.name}, {reason}")
    raise ValueError(
        f"{onnx.parent} must hold an engine of {onnx.name} for this GPU, got none: "
        f"{'; '.join(reasons)}. Build it with free export --to {flavour}"
    )


class TensorRTSession:
    """An engine on the GPU; inputs and outputs are torch's memory.

    It works on torch's current stream and waits for nothing. On the default stream TensorRT
    would wait for the whole device, so there it takes a stream of its own, between two events.
    One thread at a time, and one stream at a time, may use a session.

    Parameters
    ----------
    path : str or Path
        The engine file, with the JSON that was written beside it.
    contract : Contract
    device : torch.device or str

    Raises
    ------
    ImportError
        If TensorRT is not installed.
    ValueError
        If the device is not a GPU, or the file is not the contract's engine, whole and built
        for this GPU by this version.
    RuntimeError
        If there is no GPU, or TensorRT cannot open the engine on it.
    """

    def __init__(
        self, path: str | Path, contract: Contract, device: torch.device | str = "cuda"
    ) -> None:
        path = Path(path)
        if torch.device(device).type != "cuda":
            raise ValueError(f"device must be cuda for TensorRT, got {device}")
        built = BuiltEngine.read(path)
        trt = load_tensorrt(built.flavour)
        this_gpu()  # raises without one
        self.contract = contract
        with torch.cuda.device(device):
            self.device = torch.device("cuda", torch.cuda.current_device())
            reason = built.unfit(path, contract, trt.__version__)
            if reason is not None:
                raise ValueError(
                    f"{path} must be an engine of {contract.graph} for this GPU, but {reason}"
                )
            self._log = Log(trt)
            engine = trt.Runtime(self._log.logger).deserialize_cuda_engine(path.read_bytes())
            context = None if engine is None else engine.create_execution_context()
            if context is None:
                raise RuntimeError(f"{path} could not be opened on {self.device}: {self._log}")
            self._context: Any = context  # it keeps the engine alive
            self._own_stream = torch.cuda.Stream()
        names = [engine.get_tensor_name(i) for i in range(engine.num_io_tensors)]
        tensors = {
            name: (engine.get_tensor_dtype(name), tuple(engine.get_tensor_shape(name)))
            for name in names
        }
        require_graph(trt, contract, path, tensors)

    def run(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Run the graph; see :class:`free.engines.interface.Session`."""
        sizes = self.contract.sizes(inputs)
        self.contract.require_device(inputs, self.device)
        with torch.cuda.device(self.device):
            return self._run(inputs, sizes)

    def _run(self, inputs: Mapping[str, Tensor], sizes: dict[str, int]) -> dict[str, Tensor]:
        outputs = self.contract.empty_outputs(sizes, self.device)
        readable = {name: _aligned(value) for name, value in inputs.items()}
        for name, value in readable.items():
            if not self._context.set_input_shape(name, tuple(value.shape)):
                self._fail(f"{name} of shape {list(value.shape)} was refused")
        for name, value in (*readable.items(), *outputs.items()):
            if not self._context.set_tensor_address(name, value.data_ptr()):
                self._fail(f"the address of {name} was refused")
        # torch reuses freed memory in the order of its stream, so nothing need be kept alive.
        current = torch.cuda.current_stream()
        stream = current if current.cuda_stream else self._own_stream
        if stream is not current:
            stream.wait_stream(current)
        if not self._context.execute_async_v3(stream.cuda_stream):
            self._fail("it could not be started")
        if stream is not current:
            current.wait_stream(stream)
        return outputs

    def _fail(self, problem: str) -> None:
        raise RuntimeError(f"{self.contract.graph} failed on {self.device}, {problem}: {self._log}")


def require_graph(
    trt: Any,
    contract: Contract,
    path: str | Path,
    tensors: Mapping[str, tuple[Any, tuple[int, ...]]],
) -> None:
    """Call :meth:`Contract.require_graph` with types that are TensorRT's."""
    names = {trt.float32: "float32", trt.int64: "int64", trt.bool: "bool"}
    found = {name: (names.get(kind, str(kind)), shape) for name, (kind, shape) in tensors.items()}
    contract.require_graph(path, found)


def _aligned(value: Tensor) -> Tensor:
    """The tensor itself if its memory is contiguous and aligned, else a copy that is."""
    value = value.contiguous()
    return value.clone() if value.data_ptr() % _ALIGNMENT else value
