"""What all ops share, each tried on every op: contracts, the ways to call one, torch's tracers."""

import inspect
import warnings
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx.experimental.proxy_tensor import make_fx
from torch.fx.experimental.symbolic_shapes import DimDynamic, ShapeEnv, StatelessSymbolicContext
from torch.utils._python_dispatch import TorchDispatchMode

from free import ops, reference
from free.ops import operator
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
