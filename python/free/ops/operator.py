"""The machinery of the ops: from a contract and a twin to a function that is cheap to call.

The contract says what an op takes and gives. The twin (:mod:`free.reference`) gives the function
its signature and its documentation, and runs where there is no kernel.
"""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable, Iterable, Mapping
from functools import wraps
from typing import Any, ParamSpec, TypeVar

import numpy as np
import torch
from torch import Tensor
from torch.utils.dlpack import to_dlpack

# After torch, so that one OpenMP runtime serves both.
from free.ops import _C
from free.ops.contract import CONTRACTS, Contract

P = ParamSpec("P")
T = TypeVar("T")

_library = torch.library.Library("free", "DEF")


def connect(exchange: bool = True, **others: Any) -> None:
    """Tell the compiled core what it uses of torch; ``others`` is for tests.

    Where torch offers a table of C functions (from 2.10 on) tensors are read through it, unless
    ``exchange`` is False; else as DLPack capsules, which takes longer.
    """
    used: dict[str, Any] = {
        "tensor": Tensor,
        "to_dlpack": to_dlpack,
        "stream_of": lambda tensor: torch.cuda.current_stream(tensor.device).cuda_stream,
        "dtypes": (torch.float32, torch.float64, torch.int32, torch.int64),
        "exchange": getattr(Tensor, "__dlpack_c_exchange_api__", None) if exchange else None,
    }
    _C.connect(**(used | others))


connect()


def operator(twin: Callable[P, T], result: Callable[..., T] | None = None) -> Callable[P, T]:
    """The op of a twin's name: by compiled kernels on the CPU and on CUDA, else by the twin.

    It is registered as ``torch.ops.free.<name>``, which is what compiled and exported graphs
    contain, with a fake implementation and without gradients. A call on plain tensors that nobody
    observes goes straight to the kernel, past torch's dispatcher.

    Parameters
    ----------
    twin : callable
        Its signature and its documentation become the op's.
    result : callable or None
        Makes what is returned from the results, if there are several.
    """
    contract = CONTRACTS[twin.__name__]
    signature = inspect.signature(twin)
    names, index = list(signature.parameters), contract.number
    assert names == [argument.name for argument in contract.arguments], contract
    parameters = signature.parameters.values()
    defaults = {p.name: p.default for p in parameters if p.default is not p.empty}
    positional = sum(p.kind is p.POSITIONAL_OR_KEYWORD for p in parameters)
    _C.set_signature(index, defaults, positional)
    entry = _register(contract, twin)
    run, is_compiling = _C.run, torch.compiler.is_dynamo_compiling

    def finished(results: Any) -> Any:
        return results if result is None else result(*results)

    @wraps(twin)
    def call(*args: P.args, **kwargs: P.kwargs) -> T:
        if is_compiling():  # the fake implementation checks
            given = _by_name(names, defaults, args, kwargs)
            return finished(entry(*given))
        if not _is_observed():
            results = run(index, args, kwargs, True)
            if results is not NotImplemented:
                return results if result is None else result(*results)
        bound = signature.bind(*args, **kwargs)
        bound.apply_defaults()
        # NumPy's numbers are as good as Python's.
        values = [v.item() if isinstance(v, np.generic) else v for v in bound.arguments.values()]
        contract.check(values)
        return finished(entry(*values))

    call.__module__ = "free.ops"
    return call


def _by_name(
    names: Iterable[str], defaults: Mapping[str, Any], args: Any, kwargs: Mapping[str, Any]
) -> list[Any]:
    given = {**defaults, **dict(zip(names, args, strict=False)), **kwargs}
    return [given[name] for name in names]


# Looked up once: this is asked at every call.
_dispatch_modes = torch._C._len_torch_dispatch_stack
_function_modes = torch._C._len_torch_function_stack
_transform = torch._C._functorch.peek_interpreter_stack
_trace = torch._C._get_tracing_state
_is_profiled = torch.autograd._profiler_enabled


def _is_observed() -> bool:
    """Whether somebody wants to see each op: modes, transforms, traces, profilers."""
    return bool(
        _dispatch_modes() or _function_modes() or _transform() or _trace() or _is_profiled()
    )


def fallback(contract: Contract, twin: Callable[..., Any]) -> Callable[..., Any]:
    """The twin, checked; with a warning on a GPU, where a kernel was to be expected."""
    names = [argument.name for argument in contract.arguments]
    writes = any(argument.written for argument in contract.arguments)

    def by_twin(*values: Any) -> Any:
        contract.check(values)
        if writes:
            contract.check_memory(values)
        device = next(value.device for value in values if isinstance(value, Tensor))
        if device.type == "cuda" and (reason := _C.cuda_refusal(device.index or 0)):
            _warn_once(device, reason)
        return twin(**dict(zip(names, values, strict=True)))

    return by_twin


def _register(contract: Contract, twin: Callable[..., Any]) -> Any:
    """Define ``torch.ops.free.<name>``.

    What is registered for CUDA neither waits for the device nor looks at values, so that a CUDA
    graph can capture it.
    """
    name, by_twin = contract.name, fallback(contract, twin)

    def by_kernel(*values: Any) -> Any:
        results = _C.run(contract.number, values, {}, False)
        return by_twin(*values) if results is NotImplemented else results

    def fake(*values: Any) -> Any:
        contract.check(values)
        results = contract.allocate(values)
        return results if len(results) > 1 else results[0] if results else None

    _library.define(contract.schema(), tags=(torch.Tag.pt2_compliant_tag,))
    for key in ("CPU", "CUDA"):
        _library.impl(name, by_kernel, key)
    _library.impl(name, by_twin, "CompositeExplicitAutograd")
    # No gradients: the op does not record itself, instead of warning in a backward pass.
    _library.impl(name, torch.library.fallthrough_kernel, "Autograd")
    torch.library.register_fake(f"free::{name}", fake, lib=_library)
    return getattr(torch.ops.free, name).default


_warned: set[str] = set()


def _warn_once(device: torch.device, reason: str) -> None:
    """Say what is lost where kernels are missing; once in a process."""
    if not _warned:
        _warned.add(reason)
        warnings.warn(
            f"on {device} a round's steps run in plain torch, a few times slower and in dozens of "
            f"launches: {reason}",
            RuntimeWarning,
            stacklevel=2,
        )
