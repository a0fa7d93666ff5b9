"""The machinery of the ops: from a contract and a twin to a function that is cheap to call.

The contract says what an op takes and gives. The twin (:mod:`free.reference`) gives the function
its signature and its documentation, and runs where there is no kernel.
"""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable, Iterable
from contextlib import suppress
from functools import wraps
from typing import Any, ParamSpec, TypeVar, cast

import numpy as np
import torch
from torch import Tensor

from free.arguments import shortened

# After torch, so that one OpenMP runtime serves both.
from free.ops import _C
from free.ops.contract import CONTRACTS, check, schema

P = ParamSpec("P")
T = TypeVar("T")

_library = torch.library.Library("free", "DEF")


#: As the compiled core counts them.
_DTYPES = tuple(getattr(torch, name) for name in _C.DTYPES)


def _described(tensor: Tensor, memory: bool) -> tuple[Any, ...]:
    """Shape, dtype, device, whether it is dense, and where its memory is: 0 for nowhere."""
    dtype = _DTYPES.index(tensor.dtype) if tensor.dtype in _DTYPES else len(_DTYPES)
    kind = {"cpu": 1, "cuda": 2}.get(tensor.device.type, 0)  # as DLPack has it
    dense, pointer = False, 0
    with suppress(RuntimeError):  # some kinds have no strides, some no memory
        dense = tensor.is_contiguous()
        pointer = tensor.data_ptr() if memory else 0
    return [*tensor.shape], dtype, kind, tensor.device.index or 0, dense, pointer


def connect(exchange: bool = True, **others: Any) -> None:
    """Tell the compiled core what it uses of torch; ``others`` is for tests.

    Where torch offers a table of C functions (from 2.10 on) tensors are read and made through it,
    unless ``exchange`` is False; else they are asked for their attributes, which takes longer.
    """
    used: dict[str, Any] = {
        "tensor": Tensor,
        "described": _described,
        "empty": lambda like, shape, dtype: like.new_empty(shape, dtype=_DTYPES[dtype]),
        "stream_of": lambda tensor: torch.cuda.current_stream(tensor.device).cuda_stream,
        "shortened": shortened,
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
    entry = _register(contract, twin)
    run, is_compiling, new = _C.run, torch.compiler.is_dynamo_compiling, cast("Any", tuple.__new__)

    def values_of(args: Any, kwargs: Any) -> list[Any]:
        """Arguments in the contract's order, checked."""
        if is_compiling():  # by the fake implementation
            given = {**defaults, **dict(zip(names, args, strict=False)), **kwargs}
            return [given[name] for name in names]
        bound = signature.bind(*args, **kwargs)
        bound.apply_defaults()
        # NumPy's numbers are as good as Python's.
        values = [v.item() if isinstance(v, np.generic) else v for v in bound.arguments.values()]
        check(contract, values)
        return values

    @wraps(twin)
    def call(*args: P.args, **kwargs: P.kwargs) -> T:
        if not is_compiling() and not _is_observed():
            results = run(index, args, kwargs, defaults, positional)
            if results is not NotImplemented:
                return results if result is None else new(result, results)
        results = entry(*values_of(args, kwargs))
        return results if result is None else result(*results)

    call.__module__ = "free.ops"
    return call


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


_warned: set[str] = set()


def by_twin(contract: _C.Contract, twin: Callable[..., Any], values: Iterable[Any]) -> Any:
    """What the twin gives; on a GPU with a warning, once in a process, of what is lost."""
    device = next(value.device for value in values if isinstance(value, Tensor))
    reason = _C.cuda_refusal(device.index or 0) if device.type == "cuda" else None
    if reason and not _warned:
        _warned.add(reason)
        warnings.warn(
            f"on {device} a round's steps run in plain torch, a few times slower and in dozens of "
            f"launches: {reason}",
            RuntimeWarning,
            stacklevel=2,
        )
    return twin(**{a.name: value for a, value in zip(contract.arguments, values, strict=True)})


def _register(contract: _C.Contract, twin: Callable[..., Any]) -> Any:
    """Define ``torch.ops.free.<name>``.

    What is registered for CUDA neither waits for the device nor looks at values, so that a CUDA
    graph can capture it.
    """
    name = contract.name

    def run(*values: Any) -> Any:
        results = _C.run(contract.number, values, {}, {}, None)
        return by_twin(contract, twin, values) if results is NotImplemented else results

    def fake(*values: Any) -> Any:
        results = check(contract, values, allocate=True)
        return results if len(results) > 1 else results[0] if results else None

    _library.define(schema(contract), tags=(torch.Tag.pt2_compliant_tag,))
    for key in ("CPU", "CUDA", "CompositeExplicitAutograd"):
        _library.impl(name, run, key)
    # No gradients: the op does not record itself, instead of warning in a backward pass.
    _library.impl(name, torch.library.fallthrough_kernel, "Autograd")
    torch.library.register_fake(f"free::{name}", fake, lib=_library)
    return getattr(torch.ops.free, name).default
