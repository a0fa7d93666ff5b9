"""The machinery of the ops: from a contract and a twin to a function that is cheap to call.

A contract says what an op takes and gives (``csrc/python/ops.cpp``). From it follow the schema with
torch, the fake implementation and the words of errors, here; checks, allocation and marshalling for
the kernels, in the compiled core. The twin (:mod:`free.reference`) gives the function its signature
and its documentation, and runs where there is no kernel.
"""

from __future__ import annotations

import inspect
import math
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import wraps
from typing import Any, NamedTuple, ParamSpec, TypeVar

import torch
from torch import Tensor
from torch.utils.dlpack import to_dlpack

# After torch, so that one OpenMP runtime serves both.
from free.ops import _C

__all__ = ["CONTRACTS", "Argument", "Contract", "Sizes", "connect", "fallback", "operator"]

P = ParamSpec("P")
T = TypeVar("T")

#: ``times * (letter + plus)``, or a number; with ``open``, a letter for whatever is at least that.
Axis = tuple[str, str, int, str]

_library = torch.library.Library("free", "DEF")


class Argument(NamedTuple):
    """An argument or result as the contract has it; ``csrc/python/contract.h`` has the language."""

    name: str
    kind: str
    optional: bool
    axes: Sequence[Axis]
    rest: str
    filled: bool
    dtypes: str
    written: bool
    group: str
    binds: str
    low: int | float
    high: int | float
    highest: Axis | None
    choices: Sequence[str]


class Sizes:
    """What the letters of a contract stand for."""

    def __init__(self) -> None:
        self.letters: dict[str, Any] = {}
        self.rest: list[Any] | None = None

    def copy(self) -> Sizes:
        """What is known now."""
        sizes = Sizes()
        sizes.letters, sizes.rest = dict(self.letters), self.rest
        return sizes

    def value(self, axis: Axis) -> Any:
        """The extent of an axis; None where a letter is not known."""
        times, letter, plus, _ = axis
        factors = [self.letters.get(times) if times else 1, self.letters.get(letter)]
        if letter and None in factors:
            return None
        return factors[0] * (factors[1] + plus if letter else plus)

    def shape(self, argument: Argument) -> list[Any]:
        """The shape of a result."""
        rest = self.rest or [] if argument.rest else []
        return [*map(self.value, argument.axes), *rest]

    def bind(self, argument: Argument, value: Any) -> None:
        """Learn what is not known yet."""
        if argument.kind == "number" and argument.binds:
            self.letters[argument.binds] = 1 if value is None else 2
        elif argument.binds:
            self.letters[argument.binds] = value
        if argument.kind != "tensor" or value is None:
            return
        for (times, letter, plus, open_), extent in zip(argument.axes, value.shape, strict=False):
            if open_:
                self.letters.setdefault(open_, extent)
            elif letter and letter not in self.letters:
                each = self.letters[times] if times else 1
                self.letters[letter] = extent // each - plus
        if argument.rest and self.rest is None:
            self.rest = list(value.shape[len(argument.axes) :])

    def fits(self, argument: Argument, shape: Sequence[Any]) -> bool:
        """Whether this may be the shape of a tensor, all letters being known."""
        fixed = len(argument.axes)
        if len(shape) < fixed + (argument.rest == "...") or (argument.filled and 0 in shape):
            return False
        for axis, extent in zip(argument.axes, shape, strict=False):
            value = self.value(axis)
            if extent < value if axis[3] else extent != value:
                return False
        return list(shape[fixed:]) == (self.rest if argument.rest else [])

    def text(self, argument: Argument) -> str:
        """The shape as an error says it."""
        words = []
        for axis in argument.axes:
            times, letter, _, open_ = axis
            value = self.value(axis)
            known = str(value) if value is not None else letter
            if value is None and times in self.letters:
                known = f"a multiple of {self.letters[times]}"
            words.append(f"at least {known}" if open_ else known)
        if argument.rest:
            words += ["..."] if self.rest is None else map(str, self.rest)
        return f"{'a non-empty ' if argument.filled else ''}shape [{', '.join(words)}]"


class Contract(NamedTuple):
    """What an op takes and gives."""

    index: int
    name: str
    arguments: list[Argument]
    results: list[Argument]

    def schema(self) -> str:
        """The op as torch declares it."""
        scalars = {"integer": "SymInt", "number": "float", "flag": "bool", "choice": "str"}
        words = []
        for i, a in enumerate(self.arguments):
            kind = scalars.get(a.kind, f"Tensor({chr(97 + i)}!)" if a.written else "Tensor")
            words.append(f"{kind}{'?' if a.optional else ''} {a.name}")
        results = ", ".join(["Tensor"] * len(self.results))
        return f"{self.name}({', '.join(words)}) -> ({results})"

    def check(self, values: Sequence[Any]) -> None:
        """Raise unless arguments, in the contract's order, are what it says.

        Raises
        ------
        TypeError, ValueError
            Naming the argument, what was expected and what came.
        """
        sizes, pairs = Sizes(), list(zip(self.arguments, values, strict=True))
        for argument, value in pairs:
            if argument.kind != "tensor":
                _check_value(argument, value)
                sizes.bind(argument, value)
        first: Tensor | None = None
        for argument, value in pairs:
            if argument.kind != "tensor" or (argument.optional and value is None):
                continue
            _check_tensor(argument, value, sizes, first)
            first = value if first is None else first
        for argument, value in pairs:
            if argument.highest is not None and value is not None:
                _check_integer(argument, value, sizes.value(argument.highest))
        for group in {a.group for a in self.arguments if a.group}:
            if len({value is None for argument, value in pairs if argument.group == group}) > 1:
                raise ValueError(f"{group}: expected both or neither, got one of them")

    def allocate(self, values: Sequence[Any]) -> tuple[Tensor, ...]:
        """Results for arguments that have been checked, not written yet."""
        sizes, given = Sizes(), list(zip(self.arguments, values, strict=True))
        for argument, value in sorted(given, key=lambda pair: pair[0].kind == "tensor"):
            sizes.bind(argument, value)
        first = next(value for value in values if isinstance(value, Tensor))
        absent = {argument.group for argument, value in given if value is None}
        return tuple(
            first.new_empty(
                [0] if result.group and result.group in absent else sizes.shape(result),
                dtype=getattr(torch, result.dtypes),
            )
            for result in self.results
        )


def _check_value(argument: Argument, value: Any) -> None:
    name, kind = argument.name, argument.kind
    if argument.optional and value is None:
        return
    if kind == "integer":
        _check_integer(argument, value, argument.high)
    elif kind == "number":
        if isinstance(value, bool) or not isinstance(value, (int, float, torch.SymFloat)):
            raise TypeError(f"{name}: expected a number, got {type(value).__name__}")
        if not argument.low <= value <= argument.high:
            raise ValueError(f"{name}: expected {_interval(argument)}, got {value}")
    elif kind == "flag":
        if not isinstance(value, bool):
            raise TypeError(f"{name}: expected a bool, got {type(value).__name__}")
    elif value not in argument.choices:
        expected = ", ".join(map(repr, argument.choices))
        raise ValueError(f"{name}: expected one of {expected}, got {value!r}")


def _interval(argument: Argument) -> str:
    if math.isinf(argument.low):
        return "a number"
    if argument.high < 1e300:
        return f"a value in [{argument.low:g}, {argument.high:g}]"
    return f"a {'' if math.isinf(argument.high) else 'finite '}value >= {argument.low:g}"


def _check_integer(argument: Argument, value: Any, high: Any) -> None:
    name, low = argument.name, argument.low
    if isinstance(value, bool) or not isinstance(value, (int, torch.SymInt)):
        raise TypeError(f"{name}: expected an integer, got {type(value).__name__}")
    if value < low or value > high:
        unlimited = high >= 2**32 - 1 and value < low
        expected = f"at least {low}" if unlimited else f"a value in {low}..{high}"
        none = ", or None" if argument.optional else ""
        raise ValueError(f"{name}: expected {expected}{none}, got {value}")


def _check_tensor(argument: Argument, value: Any, sizes: Sizes, first: Tensor | None) -> None:
    name = argument.name
    if not isinstance(value, Tensor):
        raise TypeError(f"{name}: expected a tensor, got {type(value).__name__}")
    *others, last = argument.dtypes.split()
    if (dtype := str(value.dtype).removeprefix("torch.")) not in (*others, last):
        expected = f"{', '.join(others)} or {last}" if others else last
        raise TypeError(f"{name}: expected {expected}, got {dtype}")
    known = sizes.copy()
    sizes.bind(argument, value)
    if not sizes.fits(argument, value.shape):
        raise ValueError(f"{name}: expected {known.text(argument)}, got {list(value.shape)}")
    if first is not None and value.device != first.device:
        raise ValueError(f"{name}: expected a tensor on {first.device}, got one on {value.device}")
    if not value.is_contiguous():
        raise ValueError(f"{name}: expected a contiguous tensor, got strides {[*value.stride()]}")


#: By name.
CONTRACTS = {
    name: Contract(index, name, *([Argument(**each) for each in some] for some in described))
    for index, (name, *described) in enumerate(_C.contracts())
}


def connect(exchange: bool = True, **others: Any) -> None:
    """Tell the compiled core what it uses of torch; ``others`` is for tests.

    Where torch offers a table of C functions (from 2.10 on) tensors are read through it, unless
    ``exchange`` is False; else as DLPack capsules, which takes longer.
    """
    _C.connect(
        {
            "tensor": Tensor,
            "to_dlpack": to_dlpack,
            "stream_of": lambda tensor: torch.cuda.current_stream(tensor.device).cuda_stream,
            "dtypes": (torch.float32, torch.float64, torch.int32, torch.int64),
            "exchange": getattr(Tensor, "__dlpack_c_exchange_api__", None) if exchange else None,
        }
        | others
    )


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
    names, index = list(signature.parameters), contract.index
    assert names == [argument.name for argument in contract.arguments], contract
    parameters = signature.parameters.values()
    defaults = {p.name: p.default for p in parameters if p.default is not p.empty}
    positional = sum(p.kind is p.POSITIONAL_OR_KEYWORD for p in parameters)
    _C.set_signature(index, defaults, positional)
    entry = _register(contract, twin)
    run, is_compiling = _C.run, torch.compiler.is_compiling

    def finished(results: Any) -> Any:
        return results if result is None else result(*results)

    @wraps(twin)
    def call(*args: P.args, **kwargs: P.kwargs) -> T:
        if is_compiling():  # the fake implementation checks
            given = _by_name(names, defaults, args, kwargs)
            return finished(entry(*given))  # type: ignore[no-any-return]
        if not _is_observed():
            results = run(index, args, kwargs, True)
            if results is not NotImplemented:
                return results if result is None else result(*results)  # type: ignore[no-any-return]
        bound = signature.bind(*args, **kwargs)
        bound.apply_defaults()
        values = list(bound.arguments.values())
        contract.check(values)
        return finished(entry(*values))  # type: ignore[no-any-return]

    call.__module__ = "free.ops"
    return call


def _by_name(
    names: Iterable[str], defaults: Mapping[str, Any], args: Any, kwargs: Mapping[str, Any]
) -> list[Any]:
    given = {**defaults, **dict(zip(names, args, strict=False)), **kwargs}
    return [given[name] for name in names]


def _is_observed() -> bool:
    """Whether somebody wants to see each op: modes, transforms, traces, profilers."""
    return bool(
        torch._C._len_torch_dispatch_stack()
        or torch._C._len_torch_function_stack()
        or torch._C._functorch.peek_interpreter_stack() is not None
        or torch._C._get_tracing_state() is not None
        or torch.autograd._profiler_enabled()
    )


def fallback(contract: Contract, twin: Callable[..., Any]) -> Callable[..., Any]:
    """The twin, checked; with a warning on a GPU, where a kernel was to be expected."""
    names = [argument.name for argument in contract.arguments]

    def by_twin(*values: Any) -> Any:
        contract.check(values)
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
        results = _C.run(contract.index, values, {}, False)
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
