"""The CUDA kernels on a GPU, against the twins and the CPU's kernels; `make sanitize` runs these
under compute-sanitizer. What the kernels compute is tested without a GPU in test_cuda_kernels,
test_cuda_windows, test_cuda_rows.
"""

import inspect
import math
import threading
from collections.abc import Iterator
from functools import partial
from itertools import product
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from free import ops, reference
from free.ops import _C, operator
from free.ops.contract import CONTRACTS
from free.reference.draft import REUSE, SOURCES
from tests.drafts import (
    CHANGES,
    Roll,
    random_counters,
    random_draws,
    random_guesses,
    random_roll,
    written,
)
from tests.rows import (
    Note,
    noted,
    random_asking,
    random_innovations,
    random_means,
    random_note,
    random_recycling,
    random_response,
)
from tests.windows import random_relaxation, random_window, spoil_beyond_length

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")

Arguments = dict[str, Any]


def on_gpu(given: Arguments) -> Arguments:
    return {k: value.cuda() if isinstance(value, Tensor) else value for k, value in given.items()}


def several(result: Any) -> tuple[Tensor, ...]:
    return (result,) if isinstance(result, Tensor) else tuple(result)


def same(actual: Any, expected: Any, tolerance: float = 0.0) -> None:
    for value, other in zip(several(actual), several(expected), strict=True):
        limits = {"rtol": tolerance, "atol": tolerance} if value.is_floating_point() else {}
        torch.testing.assert_close(value.cpu(), other.cpu(), equal_nan=True, **limits)


def verifying(batch: int, width: int, size: int, verifier: str, seed: int = 0) -> Arguments:
    window = random_window(batch, width, (size,), delta=0.5, ragged=True, seed=seed)
    return spoil_beyond_length(window, math.nan)._asdict() | {"verifier": verifier}


def guiding(rows: int, size: int, dtype: torch.dtype, clip: float | None = 0.8) -> Arguments:
    return random_means(rows, (4, size), dtype, (4.0, 3), clip)


def call_op(name: str, given: Arguments, where: Any = ops) -> Any:
    """What an op or a twin returns, or leaves in copies of what it writes to."""
    op = getattr(where, name)
    if name == "roll_window_":
        return Roll(**given).by(op)
    if name == "note_nonfinite_":
        return noted(op, Note(**given))
    result = op(**given)
    return written(result, given["noise"]) if name == "first_guesses" else result


CALLS: dict[str, tuple[str, Arguments]] = {
    "reflection": ("verify_window", verifying(3, 8, 784, "reflection")),
    "reflection, wide": ("verify_window", verifying(1, 8, 16_384, "reflection")),
    "block": ("verify_window", verifying(3, 8, 785, "block")),
    "block, wide": ("verify_window", verifying(2, 9, 8191, "block")),
    "relaxed": ("verify_window_relaxed", random_relaxation(4, 5, (300,))),
    "window": ("window_noise", random_draws(3, 8, 1001)._asdict()),
    "window, first round": ("window_noise", random_draws(2, 8, 784, rounds=False)._asdict()),
    "guesses": ("first_guesses", random_guesses(5, 7, (1001,))._asdict()),
    "guesses, whole quads": ("first_guesses", random_guesses(2, 7, (784,), source=REUSE)._asdict()),
    "roll": ("roll_window_", random_roll(2, 7, (1001,))._asdict()),
    "roll, changes": ("roll_window_", random_roll(9, 7, (784,), "prediction", (1, 6))._asdict()),
    "normal": ("philox_normal", random_counters(5, 1001)),
    "uniform": ("philox_uniform", random_counters(7, 1)),
    "means": ("target_means", guiding(6, 77, torch.float16, None)),
    "means, clipped": ("target_means", guiding(6, 77, torch.bfloat16)),
    "note": ("note_nonfinite_", random_note(40, 3, (785,), dtype=torch.bfloat16)._asdict()),
    "note, wide": ("note_nonfinite_", random_note(1, 8, (65_536,), low=False, bad=0.3)._asdict()),
    "response": ("response_sums", random_response(40, 5, (785,))._asdict()),
    "response, wide": ("response_sums", random_response(2, 9, (16_384,))._asdict()),
    "response, no drafts": ("response_sums", random_response(3, 1, (16,))._asdict()),
    "advance": ("advance_samples_", random_recycling(40, 9)),
    "asked": ("network_rows", random_asking(5, 8, (785,), null=7)),
    "asked, listed": ("network_rows", random_asking(3, 8, (784,), listed=True)),
    "told": ("drafter_rows", random_innovations(9, (784,), True, 7)),
    "told, odd": ("drafter_rows", random_innovations(9, (785,))),
}
EACH = pytest.mark.parametrize("call", CALLS)

# --- what is computed ----------------------------------------------------------------------------

HALF, BRAIN, SINGLE = torch.float16, torch.bfloat16, torch.float32
VERIFIED = [(1, 1, 1), (1, 8, 7), (5, 4, 513), (300, 3, 784), (1, 8, 4096), (5, 4, 16_385)]
ROLLED = [(3, 0, (16,)), (3, 1, (1,)), (3, 7, (16,)), (3, 7, (1027,))]
NOTED = [(1, 1, 1, SINGLE), (1, 8, 65_536, BRAIN), (200, 9, 7, HALF), (200, 9, 513, SINGLE)]
SUMMED = [(1, 1, 1), (1, 8, 7), (300, 3, 257), (300, 3, 784), (1, 8, 16_385)]


def to_agree() -> Iterator[tuple[str, Any, float]]:
    """An op, what makes arguments of it, and how close it is to the CPU's."""
    for shape, verifier in product([*VERIFIED, (300, 3, 1)], ops.VERIFIERS):
        yield "verify_window", partial(verifying, *shape, verifier, shape[2]), 2e-6
    for roll, changes in product(ROLLED, CHANGES):
        yield "roll_window_", partial(random_roll, *roll, changes), 1e-5
    for width, size in ((1, 785), (2, 1), (8, 4), (8, 785)):
        yield "window_noise", partial(random_draws, 9, width, size), 2e-6
    for size in (1, 4, 785, 4096):
        yield "philox_uniform", partial(random_counters, 130, size), 0.0
        yield "philox_normal", partial(random_counters, 130, size), 2e-6
    for size, dtype in ((1, SINGLE), (7, HALF), (256, BRAIN)):
        yield "target_means", partial(guiding, 9, size, dtype), 1e-5
    for batch, entries, size, dtype in [*NOTED, (1, 8, 784, HALF)]:
        options = {"dtype": dtype, "bad": 0.2, "seed": size}
        yield "note_nonfinite_", partial(random_note, batch, entries, (size,), **options), 0.0
    for batch, width, size in SUMMED:
        yield "response_sums", partial(random_response, batch, width, (size,), seed=size), 1e-5


@pytest.mark.parametrize(("name", "make", "tolerance"), list(to_agree()))
def test_agrees_with_cpu_and_twin(name: str, make: Any, tolerance: float) -> None:
    made = make()
    given = made if isinstance(made, dict) else made._asdict()
    results, expected = call_op(name, on_gpu(given)), call_op(name, given)
    same(results, expected, tolerance)
    if name == "window_noise":
        assert torch.equal(results.uniforms.cpu(), expected.uniforms)
    twins = on_gpu(given) if name in ("verify_window", "target_means") else given
    same(results, call_op(name, twins, reference), max(tolerance, 1e-5))


@pytest.mark.parametrize("source", range(len(SOURCES)))
@pytest.mark.parametrize(("drafts", "size"), [(0, 16), (1, 1), (7, 16), (7, 1027)])
def test_first_guesses_agree_with_cpu_and_read_no_other_rows(drafts, size, source) -> None:
    given = random_guesses(9, drafts, (size,), source=source)
    expected = call_op("first_guesses", given._asdict())
    same(call_op("first_guesses", on_gpu(given._asdict())), expected, 1e-5)
    nearest = given._replace(row=given.row.clone())
    given.row[0], nearest.row[0] = 2**62, len(given.past_x) - 1
    expected = call_op("first_guesses", nearest._asdict())
    same(call_op("first_guesses", on_gpu(given._asdict())), expected, 1e-5)


@EACH
def test_every_op_agrees_with_the_cpu_and_repeats_itself(call: str) -> None:
    name, arguments = CALLS[call]
    given = on_gpu(arguments)
    first = call_op(name, given)
    same(first, call_op(name, arguments), 1e-5)
    for _ in range(20):
        same(call_op(name, given), first)


# --- torch integration ---------------------------------------------------------------------------


@EACH
def test_every_op_can_be_captured(call: str) -> None:
    """Which also shows that it neither waits nor looks at values."""
    name, arguments = CALLS[call]
    given = on_gpu(arguments)
    expected = [value.clone() for value in several(call_op(name, given))]
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        results = several(call_op(name, given))
    for _ in range(3):
        for result in results:
            result.zero_()
        graph.replay()
        torch.cuda.synchronize()
        same(results, tuple(expected))


@EACH
def test_every_op_is_well_formed(call: str) -> None:
    name, arguments = CALLS[call]
    bound = inspect.signature(getattr(ops, name)).bind(**on_gpu(arguments))
    bound.apply_defaults()
    checks = ("test_schema", "test_autograd_registration", "test_faketensor")
    entry = getattr(torch.ops.free, name)
    torch.library.opcheck(entry, tuple(bound.arguments.values()), test_utils=checks)


class Observer(TorchDispatchMode):
    """Sees every op that torch dispatches, and changes none."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return func(*args, **(kwargs or {}))


@EACH
def test_capsules_and_the_dispatcher_give_the_same(call: str) -> None:
    name, arguments = CALLS[call]
    given = on_gpu(arguments)
    expected = call_op(name, given)
    with Observer():
        same(call_op(name, given), expected)
    operator.connect(exchange=False)
    try:
        with torch.cuda.stream(torch.cuda.Stream()):
            same(call_op(name, given), expected)
    finally:
        operator.connect()


def test_threads_on_streams_of_their_own_do_not_disturb_each_other() -> None:
    failures = []

    def work(call: str) -> None:
        name, arguments = CALLS[call]
        try:
            with torch.cuda.stream(torch.cuda.Stream()):
                given = on_gpu(arguments)
                expected = call_op(name, given)
                for _ in range(200):
                    same(call_op(name, given), expected)
        except Exception as error:  # a thread's own would be lost
            failures.append((call, error))

    threads = [threading.Thread(target=work, args=(call,)) for call in CALLS]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []


def test_memory_stays_flat() -> None:
    calls = [(name, on_gpu(arguments)) for name, arguments in CALLS.values()]
    for name, given in calls:
        call_op(name, given)
    before = torch.cuda.memory_allocated()
    for _ in range(1000):
        for name, given in calls:
            call_op(name, given)
    assert torch.cuda.memory_allocated() == before


def test_a_window_wider_than_compiled_for() -> None:
    given = on_gpu(verifying(1, 257, 2, "reflection"))
    with pytest.raises(ValueError, match="^states: expected at most 256 rows a window on CUDA"):
        ops.verify_window(**given)


def test_tensors_on_two_devices() -> None:
    given = on_gpu(verifying(1, 4, 2, "reflection"))
    with pytest.raises(ValueError, match="^noise: expected a tensor on cuda:0, got one on cpu$"):
        ops.verify_window(**(given | {"noise": given["noise"].cpu()}))


def test_this_gpu_has_kernels_and_another_build_would_serve_it_by_the_twin() -> None:
    assert _C.cuda_refusal(0) is None
    given = on_gpu(verifying(3, 4, 20, "block"))
    contract = CONTRACTS["verify_window"]
    served = operator.by_twin(contract, reference.verify_window, [*given.values()])
    same(served, ops.verify_window(**given), 1e-5)
