"""Stand-ins for a GPU, and for TensorRT: engines that are JSON and run on the CPU's memory."""

from __future__ import annotations

import contextlib
import ctypes
import json
import sys
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

DTYPES = {"float32": torch.float32, "int64": torch.int64, "bool": torch.bool}


def see_gpu(
    monkeypatch: pytest.MonkeyPatch, target: str = "sm89", name: str = "NVIDIA GeForce RTX 4090"
) -> None:
    """Let torch see this GPU."""
    digits = target.removeprefix("sm")
    capability = (int(digits[:-1]), int(digits[-1]))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: capability)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: name)


class Stream:
    """Remembers for whom it waited; it cannot be synchronised with."""

    def __init__(self, handle: int = 7) -> None:
        self.cuda_stream = handle
        self.waited: list[int] = []

    def wait_stream(self, other: Stream) -> None:
        self.waited.append(other.cuda_stream)


class Context:
    """Reads and writes the addresses that it was given, when it is started."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.refuse: str | None = None
        self.shapes: dict[str, tuple[int, ...]] = {}
        self.addresses: dict[str, int] = {}
        self.streams: list[int] = []

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        self.shapes[name] = shape
        return self._agrees("shape")

    def set_tensor_address(self, name: str, address: int) -> bool:
        self.addresses[name] = address
        return self._agrees("address")

    def execute_async_v3(self, stream: int) -> bool:
        if not self._agrees("start"):
            return False
        self.streams.append(stream)
        inputs = {name: self._memory(name, shape) for name, shape in self.shapes.items()}
        for name, value in self.engine.compute(**inputs).items():
            self._memory(name, tuple(value.shape)).copy_(value)
        return True

    def _agrees(self, what: str) -> bool:
        if self.refuse == what:
            self.engine.log(f"no {what} today")
        return self.refuse != what

    def _memory(self, name: str, shape: tuple[int, ...]) -> Tensor:
        dtype = DTYPES[self.engine.tensors[name][0]]
        size = torch.Size(shape).numel() * dtype.itemsize
        buffer = (ctypes.c_byte * size).from_address(self.addresses[name])
        return torch.frombuffer(buffer, dtype=dtype).view(shape)


class Engine:
    """``content`` is JSON: type and shape by name."""

    def __init__(
        self, content: bytes, compute: Callable[..., dict[str, Tensor]], log: Callable[[str], None]
    ) -> None:
        self.tensors: dict[str, Any] = json.loads(content)
        self.compute, self.log = compute, log
        self.num_io_tensors = len(self.tensors)

    def get_tensor_name(self, i: int) -> str:
        return list(self.tensors)[i]

    def get_tensor_dtype(self, name: str) -> str:
        return self.tensors[name][0]

    def get_tensor_shape(self, name: str) -> list[int]:
        return self.tensors[name][1]

    def create_execution_context(self) -> Context | None:
        return Context(self)


class Logger:
    INTERNAL_ERROR, ERROR, WARNING = range(3)


def fake_tensorrt(
    monkeypatch: pytest.MonkeyPatch, compute: Callable[..., dict[str, Tensor]]
) -> None:
    """Both flavours of TensorRT, on a GPU whose tensors are on the CPU."""

    class Runtime:
        def __init__(self, logger: Any) -> None:
            self.logger = logger

        def deserialize_cuda_engine(self, content: bytes) -> Engine | None:
            self.logger.log(Logger.WARNING, "this is slow")
            if content == b"foreign":
                self.logger.log(Logger.ERROR, " magic tag is not ours \n")
                return None
            return Engine(
                content, compute, lambda text: self.logger.log(Logger.INTERNAL_ERROR, text)
            )

    trt = SimpleNamespace(
        __version__="1.0",
        Builder=None,
        ILogger=Logger,
        Runtime=Runtime,
        **{name: name for name in DTYPES},
    )
    for module in ("tensorrt", "tensorrt_rtx"):
        monkeypatch.setitem(sys.modules, module, trt)
    see_gpu(monkeypatch)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    monkeypatch.setattr(torch.cuda, "device", lambda device: contextlib.nullcontext())
    monkeypatch.setattr(torch.cuda, "Stream", Stream)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda: Stream(0))
