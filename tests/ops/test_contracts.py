"""Arguments that are not of an op's contract: refused, named, and nothing is touched."""

import inspect
import math
import re
from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor

from free import ops
from free.ops import _C
from free.ops._C import Argument
from free.ops.contract import CONTRACTS
from tests.ops.examples import FULL
from tests.shim import same
from tests.windows import random_window


def arguments_of(*kinds: str) -> list[tuple[str, Argument]]:
    return [(c.name, a) for c in CONTRACTS.values() for a in c.arguments if a.kind in kinds]


def refused(name: str, error: type[Exception], message: str, **changes: Any) -> None:
    """Raise unless the op says so, and neither it nor the compiled core touches a thing."""
    example = FULL[name]
    given = {k: v.clone() if isinstance(v, Tensor) else v for k, v in example.given.items()}
    with pytest.raises(error, match=message):
        getattr(ops, name)(**(given | changes))
    bound = inspect.signature(getattr(ops, name)).bind(**(given | changes))
    bound.apply_defaults()
    with pytest.raises(error, match=message):
        _C.run(CONTRACTS[name].number, (), bound.arguments, {}, None)
    for key, value in given.items():
        if isinstance(value, Tensor):
            same((value,), (example.given[key],))


@pytest.mark.parametrize(("name", "argument"), arguments_of("tensor"), ids=str)
def test_tensors_that_do_not_fit(name: str, argument: Argument) -> None:
    key, tensor = argument.name, FULL[name].given[argument.name]
    first = CONTRACTS[name].arguments[0].name
    refused(name, TypeError, f"^{key}: expected a tensor, got list$", **{key: [1.0]})
    if not argument.optional:
        refused(name, TypeError, f"^{key}: expected a tensor, got NoneType$", **{key: None})
    for dtype in (torch.complex64, torch.uint8):
        got = str(dtype).removeprefix("torch.")
        message = f"^{key}: expected {argument.dtypes}, got {got}$"
        refused(name, TypeError, message, **{key: tensor.to(dtype)})
    for wrong in (tensor[:0], tensor[None], torch.zeros((), dtype=tensor.dtype)):
        if wrong.shape == (0,) and not argument.filled and key in ("seeds", "length", "failed"):
            continue  # of no sample, and that is not this tensor's fault
        message = rf"^{key if key != first else '.*'}: expected .*shape \[.*\], got \["
        refused(name, ValueError, message, **{key: wrong})
    spread = torch.stack((tensor, tensor), -1)[..., 0]
    message = rf"^{key}: expected a contiguous tensor, got strides \["
    refused(name, ValueError, message, **{key: spread})
    if key != first:
        message = f"^{key}: expected a tensor on cpu, got one on meta$"
        refused(name, ValueError, message, **{key: tensor.to("meta")})


def refusals(argument: Argument) -> Iterator[tuple[Any, type[Exception], str]]:
    """Values that an argument other than a tensor must not have, and what is said of them."""
    if argument.kind == "flag":
        yield 1, TypeError, "expected a bool, got int"
    elif argument.kind == "choice":
        expected = ", ".join(map(repr, argument.choices))
        for value in ("blocks", "", argument.choices[0].title(), None, 3):
            yield value, ValueError, f"expected one of {expected}, got {value!r}"
    elif argument.kind == "integer":
        for value in (2.0, "2", True):
            yield value, TypeError, f"expected an integer, got {type(value).__name__}"
        none = ", or None" if argument.optional else ""
        for value in (argument.low - 1, -(2**70), 2**63):
            said = rf"expected (at least|a value in) \S+{none}, got {value}"
            yield value, ValueError, said
        yield 10**5000, ValueError, rf"expected .*{none}, got an integer of 16610 bits"
    else:
        for value in ("2", True, torch.ones(())):
            yield value, TypeError, f"expected a number, got {type(value).__name__}"
        below = math.nextafter(argument.least, -math.inf)
        above = [math.nextafter(argument.most, math.inf)] if argument.most < math.inf else []
        for value in (math.nan, -math.inf, below, *above):
            yield value, ValueError, rf"expected a .*value .*, got {re.escape(str(value))}"
        yield 10**400, ValueError, r"expected a value that a float can hold, got 10+\.{3}0+"


@pytest.mark.parametrize(
    ("name", "argument"), arguments_of("integer", "number", "flag", "choice"), ids=str
)
def test_values_that_do_not_fit(name: str, argument: Argument) -> None:
    for value, error, message in refusals(argument):
        refused(name, error, f"^{argument.name}: {message}$", **{argument.name: value})


#: Arguments that do not fit the others, and what is said to be expected.
MISFITS: list[tuple[str, dict[str, Any], str]] = [
    ("verify_window", {"states": (2, 4)}, "states: a non-empty shape [B, W, ...], got [2, 4]"),
    ("verify_window", {"noise": (2, 3)}, "noise: shape [2, 3, 5], got [2, 3]"),
    ("verify_window", {"uniforms": (2, 4)}, "uniforms: shape [2, 3], got [2, 4]"),
    ("first_guesses", {"drafts": 6}, "row: shape [2, at least 7], got [2, 6]"),
    ("first_guesses", {"source": 3}, "source: a value in 0..2, got 3"),
    ("first_guesses", {"past_x": (0, 4, 5)}, "past_x: a non-empty shape [R, 4, 5], got [0, 4, 5]"),
    ("first_guesses", {"columns": (3, 9)}, "columns: a non-empty shape [8, N], got [3, 9]"),
    ("roll_window_", {"end": 4}, "end: a value in 0..3, got 4"),
    ("roll_window_", {"first": 3, "end": 2}, "first: a value in 0..2, got 3"),
    ("roll_window_", {"change": None}, "change and settled: both or neither, got one of them"),
    ("roll_window_", {"settled": None}, "change and settled: both or neither, got one of them"),
    ("target_means", {"columns": (7, 7)}, "columns: a non-empty shape [8, N], got [7, 7]"),
    ("target_means", {"clip": -1.0}, "clip: a value in [0, 3.40282e+38], got -1.0"),
    ("roll_window_", {"coefficients": (5, 2, 4)}, "coefficients: shape [6, 2, 4], got [5, 2, 4]"),
    ("network_rows", {"scale": (4,)}, "scale: shape [9], got [4]"),
    ("target_means", {"cfg_channels": 5}, "cfg_channels: a value in 0..4, or None, got 5"),
    ("target_means", {"cfg_scale": None}, "eps: shape [3, 4, 5], got [6, 4, 5]"),
    ("target_means", {"x": (3,)}, "x: shape [R, C, ...], got [3]"),
    (
        "note_nonfinite_",
        {"values": (7, 5)},
        "values: a non-empty shape [a multiple of 3, ...], got [7, 5]",
    ),
    ("note_nonfinite_", {"k": (5,)}, "k: shape [6], got [5]"),
    ("response_sums", {"past_x": (7, 3)}, "past_x: a non-empty shape [R, 2, 3], got [7, 3]"),
    ("response_sums", {"row": (3, 2)}, "row: shape [3, at least 4], got [3, 2]"),
    ("response_sums", {"memory": 1.5}, "memory: a value in [0, 1], got 1.5"),
    ("advance_samples_", {"stride": 0}, "stride: at least 1, or None, got 0"),
    ("window_noise", {"decision": 2**32}, "decision: a value in 0..4294967295, got 4294967296"),
]


@pytest.mark.parametrize(("name", "changes", "message"), MISFITS)
def test_arguments_that_do_not_fit_each_other(name, changes, message) -> None:
    """Tensors are given by their shapes."""
    given = FULL[name].given
    tensors = {
        k: torch.zeros(v, dtype=given[k].dtype) for k, v in changes.items() if isinstance(v, tuple)
    }
    message = message.replace(": ", ": expected ", 1)
    refused(name, ValueError, f"^{re.escape(message)}$", **(changes | tensors))


WRITTEN = [(name, a.name) for name, a in arguments_of("tensor") if a.written]


@pytest.mark.parametrize(("name", "argument"), WRITTEN)
def test_what_is_written_shares_no_memory(name: str, argument: str) -> None:
    """Neither all of it nor its last bytes: results would depend on who reads what first."""
    given = FULL[name].given
    others = [k for k, v in given.items() if isinstance(v, Tensor) and k != argument]
    memory = torch.zeros(2**12, dtype=torch.uint8)

    def lying(tensor: Tensor, start: int) -> Tensor:
        return memory[start : start + tensor.nbytes].view(tensor.dtype).view(tensor.shape)

    tensor = given[argument]
    last = (tensor.nbytes - 1) // 8 * 8
    for other in others:
        message = f"^({argument}|{other}): expected memory of its own, .* got memory of"
        for start in (0, last):
            changes = {argument: lying(tensor, 0), other: lying(given[other], start)}
            refused(name, ValueError, message, **changes)
    beside = {argument: lying(tensor, 0), others[0]: lying(given[others[0]], last + 8)}
    getattr(ops, name)(**{**given, **beside})


def test_memory_that_is_not_aligned_is_read_by_the_twin() -> None:
    example = FULL["verify_window"]
    states = example.given["states"]
    memory = torch.empty(states.nbytes + 1, dtype=torch.uint8)
    memory[1:] = states.flatten().view(torch.uint8)
    odd = torch.frombuffer(memory.numpy(), dtype=states.dtype, offset=1).view(states.shape)
    given = example.given | {"states": odd}
    assert (
        _C.run(CONTRACTS["verify_window"].number, (), given, {"verifier": "block"}, 8)
        is NotImplemented
    )
    same(tuple(ops.verify_window(**given)), example.by_op()[:4], 1e-5)


def test_the_core_called_directly_raises_and_never_crashes() -> None:
    for wrong in (
        (),
        (0,),
        (0, (), {}),
        ("0", (), {}, {}, 8),
        (99, (), {}, {}, 8),
        (-1, (), {}, {}, 8),
        (0, (), {}, {}, "8"),
    ):
        with pytest.raises(TypeError, match="expected an int, a tuple, two dicts"):
            _C.run(*wrong)
    index = CONTRACTS["verify_window"].number
    for args in ((), (None,) * 8, (object(),) * 8, (1,) * 9):
        run, check = (
            partial(_C.run, index, args, {}, {}, None),
            partial(_C.check, index, args, False),
        )
        for core in (run, check):
            with pytest.raises((TypeError, ValueError), match="^(verify_window|verifier): expect"):
                core()
    assert _C.run(index, (), {}, {}, 8) is NotImplemented
    window = random_window(2, 4, (3,))
    results = tuple(torch.empty_like(t) for t in (window.noise, window.length, window.length))
    given = window._asdict() | {"verifier": "reflection"}
    with pytest.raises(TypeError, match="expected 4 results"):
        _C.record(index, given, results)
    with pytest.raises(ValueError, match=r"log_ratio: expected shape \[2, 3\], got \[2, 2\]"):
        _C.record(index, given, (*results, torch.empty(2, 2)))
    assert len(_C.record(index, given, (*results, torch.empty(2, 3)))) > 100
    sparse = torch.zeros(2, 4, 3).to_sparse()
    with pytest.raises(ValueError, match=r"states: expected a contiguous tensor, got strides \["):
        _C.run(index, (), given | {"states": sparse}, {}, 8)
