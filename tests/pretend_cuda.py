"""A pretend CUDA device: values on the CPU, and the rules of a GPU and of its graphs.

What it shows: that no op is given tensors of two devices; that a function which is captured neither
looks at a value nor copies between host and device; and, as a replay runs the recorded ops and no
Python, that nothing a round needs is done in Python, or kept in memory that graphs use again. What
is copied without waiting has not arrived before the stream is waited for.

What it does not show: anything about kernels (the CPU's run in their place, also those of this
package), about time or memory, or about streams and threads, of which it knows one. Ops of several
steps are split as for torch's meta device: attention is always the plain one, and ``.to`` copies
what is there already. Memory comes from no allocator: reading a freed tensor is not found, only
reading what other replays would have overwritten.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only

aten = torch.ops.aten

CUDA = torch.device("cuda:0")

#: Ops whose second argument is indices, which torch itself moves to the device.
_INDEXING = (aten.index, aten.index_put, aten.index_put_)

#: What they return depends on values: a device has to be waited for.
_LOOKS = {torch.Tag.data_dependent_output, torch.Tag.dynamic_output_shape}

#: Calls before a capture, as in ``free.sampling.cuda_graphs.capture``.
_WARM_UP = 3


class DeviceError(RuntimeError):
    """What a CUDA device refuses, always or while it captures."""


class OnDevice(Tensor):
    """A tensor that says it is on the device; ``inner`` has its values."""

    inner: Tensor
    device = property(lambda self: CUDA)  # type: ignore[assignment]
    is_cuda = property(lambda self: True)  # type: ignore[assignment]

    @staticmethod
    def __new__(cls, inner: Tensor) -> OnDevice:
        # Of the meta device to torch's C++, which would want a driver for CUDA.
        tensor = Tensor._make_wrapper_subclass(
            cls,
            inner.shape,
            strides=inner.stride(),
            storage_offset=inner.storage_offset(),
            dtype=inner.dtype,
            device="meta",
        )
        tensor.inner = inner
        return tensor

    def __repr__(self) -> str:  # type: ignore[override]
        return f"OnDevice({self.inner})"

    def tolist(self) -> Any:
        return self.cpu().tolist()

    @classmethod
    def __torch_dispatch__(cls, op: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        raise DeviceError(f"{op} outside of PretendCuda")


class PretendCuda(TorchDispatchMode):
    """The device, while it is entered.

    Attributes
    ----------
    waits : int
        How often the host has looked at a value, or copied one between itself and the device.
    """

    def __init__(self) -> None:
        super().__init__()
        self.waits = 0
        self._tape: list[tuple[Any, Any, Any, list[Any]]] | None = None  # while it captures
        self._scratch: list[Tensor] = []  # what captured functions allocate
        self._arriving: list[tuple[Tensor, Tensor]] = []

    def __enter__(self) -> PretendCuda:
        self._lifted = torch._C._only_lift_cpu_tensors()
        # torch.tensor(..., device=...) is made on the CPU and then copied, as it is for CUDA.
        torch._C._set_only_lift_cpu_tensors(True)
        return super().__enter__()

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        torch._C._set_only_lift_cpu_tensors(self._lifted)

    def synchronize(self) -> None:
        """Wait for what is under way."""
        self.waits += 1
        for place, value in self._arriving:
            with torch.utils._python_dispatch._disable_current_modes():
                place.copy_(value)
        self._arriving.clear()

    def capture(self, function: Callable[[], object], device: torch.device) -> Callable[[], object]:
        """As :class:`free.sampling.cuda_graphs.CudaGraphs`: replays run the recorded ops only.

        Raises
        ------
        DeviceError
            If the function waits for the device.
        """
        assert device == CUDA
        for _ in range(_WARM_UP):
            function()
        self._tape = tape = []
        try:
            function()
        finally:
            self._tape = None
        return lambda: self._replay(tape)

    def _replay(self, tape: list[tuple[Any, Any, Any, list[Any]]]) -> None:
        with torch.utils._python_dispatch._disable_current_modes():
            for place in self._scratch:
                place.fill_(torch.nan if place.is_floating_point() else place.dtype == torch.bool)
            for op, args, kwargs, places in tape:
                for place, value in zip(places, tree_leaves(op(*args, **kwargs)), strict=True):
                    if isinstance(place, Tensor) and place.data_ptr() != value.data_ptr():
                        place.copy_(value)

    def __torch_dispatch__(self, op: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        here = any(isinstance(tensor, OnDevice) for tensor in tensors)
        asked = kwargs.get("device")
        to_device = here if asked is None else asked.type in ("cuda", "meta")
        if here:
            _require_one_device(op, args, tensors)
        if _waits(op, args, tensors, to_device):
            self.waits += 1
            if self._tape is not None:
                raise DeviceError(f"{op} waits for the device, or copies to or from it")
        inner = {id(_inner(tensor)): tensor for tensor in tensors}
        args, kwargs = tree_map_only(Tensor, _inner, (args, kwargs))
        kwargs.pop("pin_memory", None)
        if to_device and asked is not None:
            kwargs["device"] = torch.device("cpu")
        unwaited = op.overloadpacket is aten.copy_ and here and args[2:] == (True,)
        if unwaited and not isinstance(tensors[0], OnDevice):
            self._arriving.append((args[0], args[1].clone()))
            return args[0]
        out = op(*args, **kwargs)
        if self._tape is not None and to_device:
            places = tree_leaves(out)
            self._tape.append((op, args, kwargs, places))
            self._scratch += [place for place in places if _is_new(place, tensors)]

        def outer(tensor: Tensor) -> Tensor:
            made = inner.get(id(tensor))  # the same one, where it was written to
            return made if made is not None else OnDevice(tensor) if to_device else tensor

        return tree_map_only(Tensor, outer, out)


def _inner(tensor: Tensor) -> Tensor:
    return tensor.inner if isinstance(tensor, OnDevice) else tensor


def _is_new(value: Any, tensors: list[Tensor]) -> bool:
    """Whether a tensor has memory of its own."""
    if not isinstance(value, Tensor):
        return False
    storage = value.untyped_storage().data_ptr()
    return all(storage != _inner(tensor).untyped_storage().data_ptr() for tensor in tensors)


def _require_one_device(op: Any, args: Any, tensors: list[Tensor]) -> None:
    """Of an op with a tensor on the device; the host's may be numbers, or an indexing's indices."""
    if op.overloadpacket is aten.copy_:
        return
    if op.overloadpacket in _INDEXING and isinstance(args[0], OnDevice):
        tensors = [args[0], *args[2:3]]
    host = [tensor for tensor in tensors if not isinstance(tensor, OnDevice)]
    number = torch.Tag.pointwise in op.tags and all(tensor is not args[0] for tensor in host)
    if any(tensor.dim() or not number for tensor in host):
        shapes = [list(tensor.shape) for tensor in host]
        raise DeviceError(f"{op} on two devices: of shapes {shapes} are on the CPU")


def _waits(op: Any, args: Any, tensors: list[Tensor], to_device: bool) -> bool:
    """Whether the host waits for the device, or copies to or from it."""
    here = [isinstance(tensor, OnDevice) for tensor in tensors]
    if op.overloadpacket is aten._to_copy:
        return here[0] != to_device
    if not any(here):
        return False
    if op.overloadpacket is aten.copy_:
        return not all(here)
    if op.overloadpacket in _INDEXING:
        indices = [index for index in args[1] if index is not None]
        masks = any(index.dtype in (torch.bool, torch.uint8) for index in indices)
        return masks or not all(here)
    return not _LOOKS.isdisjoint(op.tags)


class _Stream:
    cuda_stream = 0

    def __init__(self, device: PretendCuda) -> None:
        self.synchronize = device.synchronize


@contextmanager
def pretend_cuda() -> Iterator[PretendCuda]:
    """The device, as ``cuda:0`` of torch."""
    with pytest.MonkeyPatch.context() as patch, PretendCuda() as device:
        patch.setattr(torch.cuda, "_lazy_init", lambda: None)
        patch.setattr(torch.cuda, "current_stream", lambda device_=None: _Stream(device))
        yield device


def on_device(network: nn.Module) -> nn.Module:
    """A copy there."""
    network = copy.deepcopy(network)
    for module in network.modules():
        for name, weight in module.named_parameters(recurse=False):
            module._parameters[name] = nn.Parameter(OnDevice(weight.detach()), weight.requires_grad)
        for name, buffer in module.named_buffers(recurse=False):
            module._buffers[name] = OnDevice(buffer)
    return network


def values(tensor: Tensor) -> Tensor:
    """A tensor of the device, for a test to look at."""
    return _inner(tensor)
