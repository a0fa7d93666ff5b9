"""ONNX Runtime: the CPU, CUDA and TensorRT execution providers."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from free.engines.interface import Contract

__all__ = ["PROVIDERS", "OnnxSession", "require_onnxruntime"]

#: Execution providers by the names that we give them.
PROVIDERS = {
    "cpu": "CPUExecutionProvider",
    "cuda": "CUDAExecutionProvider",
    "tensorrt": "TensorrtExecutionProvider",
}


def require_onnxruntime() -> Any:
    """The module ``onnxruntime``.

    Raises
    ------
    ImportError
        If it is not installed; names the extra.
    """
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
        If the provider cannot be had here. ONNX Runtime itself would fall back to the CPU.
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
        if threads is not None and (
            isinstance(threads, bool) or not isinstance(threads, int) or threads < 1
        ):
            raise ValueError(f"threads must be None or an integer >= 1, got {threads!r}")
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
                raise RuntimeError(f"{path} does not fit into memory: {_first(error)}") from error
            raise ValueError(
                f"{path} must be an ONNX graph with its weights beside it that {name} can run, "
                f"got {_first(error)}"
            ) from error
        if name not in self._session.get_providers():
            raise RuntimeError(
                f"provider {name} was asked for and could not be started; onnxruntime offers "
                f"{', '.join(self._session.get_providers())} instead. Its CUDA, cuDNN or TensorRT "
                "libraries, or the device, are missing"
            )
        self.contract = contract
        self.device = torch.device("cpu" if provider == "cpu" else "cuda")
        _check_interface(self._session, contract, path)

    def run(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Run the graph; see :class:`free.engines.session.Session`."""
        sizes = self.contract.sizes(inputs)
        outputs = self.contract.empty_outputs(sizes, self.device)
        binding = self._session.io_binding()
        kept = []  # contiguous copies live until the graph has run
        for name, value in inputs.items():
            if value.device.type != self.device.type:  # its address would mean nothing there
                raise ValueError(
                    f"{name} of {self.contract.graph} must be on {self.device}, got {value.device}"
                )
            value = value.contiguous()
            kept.append(value)
            binding.bind_input(name, *_place(value))
        for name, value in outputs.items():
            binding.bind_output(name, *_place(value))
        if self.device.type == "cuda":
            # ONNX Runtime has a stream of its own.
            torch.cuda.current_stream().synchronize()
        self._session.run_with_iobinding(binding)
        return outputs


def _place(value: Tensor) -> tuple[str, int, Any, list[int], int]:
    """Device, its number, element type, shape and address."""
    kind = {torch.float32: 1, torch.int64: 7, torch.bool: 9}[value.dtype]  # ONNX's numbers
    return value.device.type, value.device.index or 0, kind, list(value.shape), value.data_ptr()


def _check_interface(session: Any, contract: Contract, path: str | Path) -> None:
    types = {"float32": "tensor(float)", "int64": "tensor(int64)", "bool": "tensor(bool)"}
    for side, specs, found in (
        ("inputs", contract.inputs, session.get_inputs()),
        ("outputs", contract.outputs, session.get_outputs()),
    ):
        agreed = [(spec.name, types[spec.dtype], list(spec.shape)) for spec in specs]
        got = [(value.name, value.type, list(value.shape)) for value in found]
        if agreed != got:
            wrong = next(
                (pair for pair in zip(agreed, got, strict=False) if pair[0] != pair[1]),
                (agreed, got),
            )
            raise ValueError(
                f"{path} must have the {side} of its manifest, {wrong[0]}, got {wrong[1]}"
            )


def _first(error: Exception) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
