"""ONNX Runtime as an engine, on its CPU, CUDA or TensorRT execution provider."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from free.arguments import as_integer
from free.devices import MOST_THREADS
from free.engines.interface import Contract

#: Execution providers by the names that we give them.
PROVIDERS = {
    "cpu": "CPUExecutionProvider",
    "cuda": "CUDAExecutionProvider",
    "tensorrt": "TensorrtExecutionProvider",
}


def require_onnxruntime() -> Any:
    """Import ``onnxruntime``, or raise an ImportError that names the extra."""
    try:
        import onnxruntime
    except ImportError as error:
        raise ImportError("this engine needs onnxruntime: pip install 'free-dit[onnx]'") from error
    return onnxruntime


class OnnxSession:
    """A graph on ONNX Runtime; contiguous inputs, and outputs, are torch's memory, not copied.

    Parameters
    ----------
    path : str or Path
        The ``.onnx`` file; the file of weights it refers to lies beside it.
    contract : Contract
    provider : {"cpu", "cuda", "tensorrt"}
    threads : int, optional
        Of the CPU provider; default as many as torch uses.

    Raises
    ------
    ImportError
        If onnxruntime is not installed.
    ValueError
        If the provider is unknown, ``threads`` is not positive, or the file is not the
        contract's graph.
    RuntimeError
        If the provider cannot start here. ONNX Runtime itself would fall back to the CPU.
    """

    def __init__(
        self,
        path: str | Path,
        contract: Contract,
        provider: str = "cpu",
        threads: int | None = None,
    ) -> None:
        if provider not in PROVIDERS:
            raise ValueError(f"provider must be one of {', '.join(PROVIDERS)}, got {provider!r}")
        if threads is not None:
            expected = f"threads must be None or an integer in 1..{MOST_THREADS}"
            threads = as_integer(threads, expected, 1, MOST_THREADS)
        ort = require_onnxruntime()
        name = PROVIDERS[provider]
        if name not in ort.get_available_providers():
            raise RuntimeError(
                f"provider {name} is not in this build of onnxruntime, which has "
                f"{', '.join(ort.get_available_providers())}: install onnxruntime-gpu"
            )
        options = ort.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads() if threads is None else threads
        options.inter_op_num_threads = 1
        # Between calls torch's threads work; ours must not burn their cores waiting.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.log_severity_level = 3
        try:
            self._session = ort.InferenceSession(str(path), options, providers=[name])
        except Exception as error:  # onnxruntime's own types have no common base
            if "out of memory" in str(error).lower() or "failed to allocate" in str(error).lower():
                raise RuntimeError(f"{path} does not fit into memory: {_reason(error)}") from error
            raise ValueError(
                f"{path} must be an ONNX graph with its weights beside it that {name} can run, "
                f"got {_reason(error)}"
            ) from error
        if name not in self._session.get_providers():
            raise RuntimeError(
                f"provider {name} was asked for and could not be started; onnxruntime offers "
                f"{', '.join(self._session.get_providers())} instead. Its CUDA, cuDNN or TensorRT "
                "libraries, or the device, are missing"
            )
        self.contract = contract
        self.device = torch.device("cpu" if provider == "cpu" else "cuda")
        values = (*self._session.get_inputs(), *self._session.get_outputs())
        contract.require_graph(path, {v.name: (_dtype(v.type), tuple(v.shape)) for v in values})

    def run(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Run the graph; see :class:`free.engines.interface.Session`."""
        sizes = self.contract.sizes(inputs)
        self.contract.require_device(inputs, self.device)
        outputs = self.contract.empty_outputs(sizes, self.device)
        binding = self._session.io_binding()
        # Copies, where there are any, live until the graph has run.
        contiguous = {name: value.contiguous() for name, value in inputs.items()}
        for bind, values in ((binding.bind_input, contiguous), (binding.bind_output, outputs)):
            for name, value in values.items():
                kind = {torch.float32: 1, torch.int64: 7, torch.bool: 9}[value.dtype]  # ONNX's
                index = value.device.index or 0
                shape = list(value.shape)
                bind(name, value.device.type, index, kind, shape, value.data_ptr())
        if self.device.type == "cuda":
            # ONNX Runtime has a stream of its own.
            torch.cuda.current_stream().synchronize()
        self._session.run_with_iobinding(binding)
        return outputs


def _dtype(kind: str) -> str:
    """Our name of ONNX Runtime's ``tensor(float)`` and so on."""
    name = kind.removeprefix("tensor(").removesuffix(")")
    return "float32" if name == "float" else name


def _reason(error: Exception) -> str:
    """An error's first line."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)
