"""What all ops share, each tried on every op: contracts, the ways to call one, torch's tracers."""

import inspect
import math
import re
import warnings
from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx.experimental.proxy_tensor import make_fx
from torch.fx.experimental.symbolic_shapes import DimDynamic, ShapeEnv, StatelessSymbolicContext
from torch.utils._python_dispatch import TorchDispatchMode

from free import ops, reference
from free.ops import _C, operator
from free.ops._C import Argument
from free.ops.contract import CONTRACTS
from tests.drafts import written
from tests.ops.examples import EXAMPLES, FULL, Example, large
from tests.ops.sizes import Sizes
from tests.shim import same
from tests.windows import random_window

EACH = pytest.mark.parametrize("example", EXAMPLES.values(), ids=list(EXAMPLES))
EVERY_OP = pytest.mark.parametrize("name", CONTRACTS)


@pytest.fixture
def _by_attributes() -> Iterator[None]:
    operator.connect(exchange=False)
    yield
    operator.connect()


def alike(actual: tuple[Tensor, ...], expected: tuple[Tensor, ...], tolerance: float) -> None:
    """What is written later, and no image that was not asked for, is not compared."""
    assert len(actual) == len(expected)
    pairs = [
        (a, b) for a, b in zip(actual, expected, strict=True) if a.shape == b.shape and a.numel()
    ]
    same(*zip(*pairs, strict=True), tolerance)  # type: ignore[arg-type]


def compared(example: Example, results: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    if example.name != "first_guesses":
        return results
    return written(results, example.given["noise"])


# --- one op, many ways to call it ----------------------------------------------------------------


@EACH
def test_every_way_gives_the_same(example: Example) -> None:
    """Straight to the kernel, through torch's dispatcher, and past an observer of modes."""
    direct = compared(example, example.by_op())
    order = [argument.name for argument in CONTRACTS[example.name].arguments]
    entry = getattr(torch.ops.free, example.name)
    defaults = {
        p.name: p.default
        for p in inspect.signature(getattr(ops, example.name)).parameters.values()
        if p.default is not p.empty
    }

    def dispatched(**given: Any) -> Any:
        return entry(*((defaults | given)[name] for name in order))

    alike(compared(example, example.call(dispatched)), direct, 0.0)
    seen = []

    class Observer(TorchDispatchMode):
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None):
            seen.append(str(func))
            return func(*args, **(kwargs or {}))

    with Observer():
        observed = example.by_op()
    assert f"free.{example.name}.default" in seen
    alike(compared(example, observed), direct, 0.0)
    alike(compared(example, example.by_twin()), direct, 1e-5)


@EACH
@pytest.mark.usefixtures("_by_attributes")
def test_older_torch_gives_the_same(example: Example) -> None:
    by_attributes = compared(example, example.by_op())
    operator.connect()
    alike(by_attributes, compared(example, example.by_op()), 0.0)


@EVERY_OP
def test_a_call_is_a_python_call(name: str) -> None:
    """By position as far as the signature says, by name, and nothing else."""
    op, example = getattr(ops, name), FULL[name]
    parameters = inspect.signature(op).parameters.values()
    assert op.__doc__ == getattr(reference, name).__doc__
    names = [p.name for p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD]
    assert len(names) <= (8 if name == "verify_window" else 6)
    split = [example.given[key] for key in names if key in example.given]
    rest = {key: value for key, value in example.given.items() if key not in names}
    by_name = Example(name, example.given).by_op()
    positional = Example(name, rest).call(
        lambda **rest: op(*(v.clone() if isinstance(v, Tensor) else v for v in split), **rest)
    )
    results = len(CONTRACTS[name].results)
    alike(
        compared(example, positional)[:results], compared(example, by_name)[:results], 0.0
    ) if results else None
    with pytest.raises(TypeError, match="unexpected keyword argument 'nothing'"):
        op(**example.given, nothing=1)
    with pytest.raises(TypeError, match="too many positional arguments"):
        op(*example.given.values(), *[1] * 8)
    required = next(p.name for p in parameters if p.default is p.empty)
    with pytest.raises(TypeError, match=f"missing a required argument: '{required}'"):
        op(**{key: value for key, value in example.given.items() if key != required})


def part_of(argument: Argument, value: Any, first: int, sizes: Sizes) -> Any:
    """The share that sample ``first`` has of a tensor; others are of all samples."""
    for place, (times, letter, plus, _) in enumerate(argument.axes):
        if isinstance(value, Tensor) and plus == 0 and (times == "B" or letter in ("B", "R")):
            if letter == "R" and "B" in sizes.letters:
                continue  # rows of a call before
            each = sizes.letters[letter] if times == "B" else sizes.letters.get(times, 1)
            return value.narrow(place, first * each, each).contiguous()
    return value


@pytest.fixture(scope="module")
def of_many_samples() -> dict[str, Example]:
    torch.manual_seed(0)
    return large()


@pytest.mark.parametrize(
    "name", [name for name in CONTRACTS if name[:5] not in ("philo", "advan", "netwo")]
)
def test_a_sample_depends_on_no_other_nor_on_threads(of_many_samples, name) -> None:
    example, contract = of_many_samples[name], CONTRACTS[name]
    together = compared(example, example.by_op())
    torch.set_num_threads(2)
    try:
        alike(compared(example, example.by_op()), together, 0.0)
    finally:
        torch.set_num_threads(1)
    alike(together, compared(example, example.by_twin()), 1e-5)
    sizes, count = Sizes(), len(contract.results)
    for argument in contract.arguments:
        sizes.bind(argument, example.given.get(argument.name))
    for sample in (0, 17, 39):
        given = {
            a.name: part_of(a, example.given[a.name], sample, sizes)
            for a in contract.arguments
            if a.name in example.given
        }
        alone = compared(example, Example(name, given).by_op())
        parts = zip(contract.results, together[:count], strict=True)
        expected = [part_of(result, value, sample, sizes) for result, value in parts]
        alike(alone[:count], tuple(expected), 0.0) if count else None


@EACH
def test_is_a_well_formed_custom_op(example: Example) -> None:
    checks = ("test_schema", "test_autograd_registration", "test_faketensor")
    bound = inspect.signature(getattr(ops, example.name)).bind(**example.given)
    bound.apply_defaults()
    entry = getattr(torch.ops.free, example.name)
    torch.library.opcheck(entry, tuple(bound.arguments.values()), test_utils=checks)


@EACH
@pytest.mark.parametrize("exchange", [True, False])
def test_fake_tensors_are_checked_and_give_results(example: Example, exchange: bool) -> None:
    results = CONTRACTS[example.name].results
    count, key = len(results), CONTRACTS[example.name].arguments[0].name
    operator.connect(exchange=exchange)
    with FakeTensorMode() as mode, warnings.catch_warnings():
        warnings.simplefilter("error")
        given = {
            k: mode.from_tensor(v) if isinstance(v, Tensor) else v for k, v in example.given.items()
        }
        fakes = Example(example.name, given).by_op()[:count]
        with pytest.raises(ValueError, match=rf"^{key}: expected .*shape \[.*\], got \[\]$"):
            Example(example.name, given | {key: given[key].new_empty(())}).by_op()
    operator.connect()
    described = [(t.shape, t.dtype) for t in fakes]
    assert described == [(t.shape, t.dtype) for t in example.by_op()[:count]]


@EACH
def test_symbolic_sizes_stay_symbols(example: Example) -> None:
    """Nothing is bound to a number, and nothing to another symbol: that is for the run to check."""
    count, shapes = len(CONTRACTS[example.name].results), ShapeEnv()
    with FakeTensorMode(shape_env=shapes) as mode:
        given = dict(example.given)
        for name, value in given.items():
            if isinstance(value, Tensor):
                free = StatelessSymbolicContext([DimDynamic.DYNAMIC] * value.dim())
                given[name] = mode.from_tensor(value, symbolic_context=free)
        fakes = getattr(ops, example.name)(**given)
    assert not shapes.guards
    fakes = () if fakes is None else (fakes,) if isinstance(fakes, Tensor) else tuple(fakes)
    described = [([*map(int, t.shape)], t.dtype) for t in fakes]
    assert described == [([*t.shape], t.dtype) for t in example.by_op()[:count]]


def test_a_graph_of_symbolic_sizes_checks_when_it_runs() -> None:
    compiled = torch.compile(ops.target_means, fullgraph=True, backend="eager", dynamic=True)
    for key in ("means, clipped", "means, guided"):
        alike(EXAMPLES[key].call(compiled), EXAMPLES[key].by_op(), 0.0)
    given = EXAMPLES["means, clipped"].given
    with pytest.raises(
        ValueError, match=r"columns: expected a non-empty shape \[8, N\], got \[7, 7\]"
    ):
        compiled(**given | {"columns": torch.ones(7, 7)})


@pytest.mark.parametrize(
    "key", ["reflection", "guesses", "roll, change", "means, clipped", "normal"]
)
def test_compiled_and_traced_code_contains_the_op(key: str) -> None:
    example = EXAMPLES[key]
    expected = compared(example, example.by_op())
    op = getattr(ops, example.name)
    compiled = torch.compile(lambda **given: op(**given), fullgraph=True, backend="aot_eager")
    alike(compared(example, example.call(compiled)), expected, 0.0)
    tensors = {k: v for k, v in example.given.items() if isinstance(v, Tensor)}
    rest = {k: v for k, v in example.given.items() if k not in tensors}
    graph = make_fx(lambda given: op(**given, **rest))({k: v.clone() for k, v in tensors.items()})
    assert f"torch.ops.free.{example.name}.default" in graph.code


def test_transforms_and_profilers_see_the_op() -> None:
    window = random_window(3, 2, (4,))
    split = torch.vmap(ops.verify_window)(*(t[:, None] for t in window))
    alike(tuple(part[:, 0] for part in split), tuple(ops.verify_window(*window)), 0.0)
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profiler:
        ops.verify_window(*window)
    assert "free::verify_window" in {event.name for event in profiler.events()}


# --- arguments that do not fit -------------------------------------------------------------------


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
    alike(tuple(ops.verify_window(**given)), example.by_op()[:4], 1e-5)


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


# --- GPUs ----------------------------------------------------------------------------------------


def test_without_kernels_the_twin_serves_with_one_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    """As for a GPU, whose tensors fake ones stand for."""
    said = "this build of free has no CUDA kernels: FREE_CUDA=ON pip install ."
    monkeypatch.setattr("free.ops._C.cuda_refusal", lambda device: said)
    monkeypatch.setattr(operator, "_warned", set())

    def served(*values: Any) -> Any:
        contract = CONTRACTS["verify_window"]
        return operator.by_twin(contract, lambda **given: given["verifier"], values)

    with FakeTensorMode():
        window = random_window(2, 3, (4,))
        there = [torch.empty(t.shape, dtype=t.dtype, device="cuda") for t in window]
        with pytest.warns(RuntimeWarning, match="^on cuda:0 .* plain torch, .* slow.*FREE_CUDA=ON"):
            assert served(*there, "reflection") == "reflection"
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert served(*there, "block") == "block"
