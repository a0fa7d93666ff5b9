"""The CUDA kernels on a GPU, against the twins and the CPU's kernels; `make sanitize` runs these
under compute-sanitizer. What the kernels compute is tested without a GPU in test_cuda_kernels,
test_cuda_windows, test_cuda_rows.
"""

import inspect
import math
import threading
from collections.abc import Callable
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
    random_draws,
    random_guesses,
    random_roll,
    without_what_is_to_be_rolled,
)
from tests.rows import random_note, random_response
from tests.windows import random_window, spoil_beyond_length

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")

EVERY = pytest.mark.parametrize("verifier", ops.VERIFIERS)
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


def rolled(**given: Any) -> tuple[Tensor, ...]:
    """States, means and guesses, as roll_window_ leaves them in copies."""
    return Roll(**given).by(ops.roll_window_)


def guessed(**given: Any) -> tuple[Tensor, ...]:
    """What first_guesses writes."""
    return without_what_is_to_be_rolled(ops.first_guesses(**given))


def drawing(rows: int, size: int) -> Arguments:
    seeds = torch.randint(-(2**63), 2**63 - 1, (rows,))
    transition, again = torch.randint(0, 2**32, (2, rows)).unbind(0)
    columns = {"seeds": seeds, "transition": transition, "round": again}
    return columns | {"purpose": 1, "size": size}


def guiding(rows: int, size: int, dtype: torch.dtype, image: bool = True) -> Arguments:
    return {
        "x": torch.randn(rows, 4, size),
        "eps": torch.randn(2 * rows, 4, size).to(dtype),
        "a": torch.rand(rows),
        "b": torch.randn(rows),
        "cfg_scale": 4.0,
        "cfg_channels": 3,
        "signal": 0.5 + torch.rand(rows) if image else None,
        "noise": torch.rand(rows) if image else None,
    }


def noted(**given: Any) -> Tensor:
    """What is in ``failed`` afterwards; it stays as it is."""
    failed = given["failed"].clone()
    ops.note_nonfinite_(**(given | {"failed": failed}))
    return failed


def recycling(batch: int, width: int) -> Arguments:
    length = torch.randint(1, width + 1, (batch,), dtype=torch.int32)
    advance = (1 + torch.rand(batch) * length).int().clamp(max=length)
    return {"length": length, "advance": advance, "width": width, "discarded": True}


def relaxing(batch: int, width: int, size: int) -> Arguments:
    given = verifying(batch, width, size, "reflection")
    del given["verifier"]
    spent = torch.rand(batch).double() * 0.1
    relaxation = {"rule": "allow", "strength": 1.5, "budget": 0.2}
    return given | {"uncertainty": None, "spent": spent} | relaxation


#: An op with its arguments on the CPU; each shape of launch is among them.
CALLS: dict[str, tuple[Callable[..., Any], Arguments]] = {
    "reflection": (ops.verify_window, verifying(3, 8, 784, "reflection")),
    "reflection, wide": (ops.verify_window, verifying(1, 8, 16_384, "reflection")),
    "block": (ops.verify_window, verifying(3, 8, 785, "block")),
    "block, wide": (ops.verify_window, verifying(2, 9, 8191, "block")),
    "relaxed": (ops.verify_window_relaxed, relaxing(4, 5, 300)),
    "window": (ops.window_noise, random_draws(3, 8, 1001)._asdict()),
    "window, first round": (ops.window_noise, random_draws(2, 8, 784, rounds=False)._asdict()),
    "guesses": (guessed, random_guesses(5, 7, (1001,))._asdict()),
    "guesses, whole quads": (guessed, random_guesses(2, 7, (784,), source=REUSE)._asdict()),
    "roll": (rolled, random_roll(2, 7, (1001,))._asdict()),
    "roll, changes": (rolled, random_roll(9, 7, (784,), "adds", (1, 6))._asdict()),
    "normal": (ops.philox_normal, drawing(5, 1001)),
    "uniform": (ops.philox_uniform, drawing(7, 1)),
    "means": (ops.target_means, guiding(6, 77, torch.float16, image=False)),
    "means and image": (ops.target_means, guiding(6, 77, torch.bfloat16)),
    "note": (noted, random_note(40, 3, (785,), dtype=torch.bfloat16)._asdict()),
    "note, wide": (noted, random_note(1, 8, (65_536,), low=False, bad=0.3)._asdict()),
    "response": (ops.response_sums, random_response(40, 5, (785,))._asdict()),
    "response, wide": (ops.response_sums, random_response(2, 9, (16_384,))._asdict()),
    "response, no drafts": (ops.response_sums, random_response(3, 1, (16,))._asdict()),
    "rows": (ops.recycled_rows, recycling(40, 9)),
}
EACH = pytest.mark.parametrize("call", CALLS)

# --- what is computed ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("batch", "width", "size"),
    [(1, 1, 1), (1, 8, 7), (5, 4, 513), (300, 3, 784), (1, 8, 4096), (5, 4, 16_385), (300, 3, 1)],
)
@EVERY
def test_verifying_agrees_with_cpu_and_twin(verifier, batch, width, size) -> None:
    arguments = verifying(batch, width, size, verifier, seed=size)
    given = on_gpu(arguments)
    verified = ops.verify_window(**given)
    same(verified, ops.verify_window(**arguments), 2e-6)
    same(verified, reference.verify_window(**given), 1e-5)


@pytest.mark.parametrize("changes", CHANGES)
@pytest.mark.parametrize(("drafts", "size"), [(0, 16), (1, 1), (7, 16), (7, 1027)])
def test_rolling_agrees_with_cpu(drafts: int, size: int, changes: str | None) -> None:
    window = random_roll(3, drafts, (size,), changes)._asdict()
    same(rolled(**on_gpu(window)), rolled(**window), 1e-5)


@pytest.mark.parametrize("source", range(len(SOURCES)))
@pytest.mark.parametrize(("drafts", "size"), [(0, 16), (1, 1), (7, 16), (7, 1027)])
def test_first_guesses_agree_with_cpu_and_read_no_other_rows(drafts, size, source) -> None:
    given = random_guesses(9, drafts, (size,), source=source)
    same(guessed(**on_gpu(given._asdict())), guessed(**given._asdict()), 1e-5)
    nearest = given._replace(row=given.row.clone())
    given.row[0], nearest.row[0] = 2**62, len(given.past_x) - 1
    same(guessed(**on_gpu(given._asdict())), guessed(**nearest._asdict()), 1e-5)


@pytest.mark.parametrize(("width", "size"), [(1, 785), (2, 1), (8, 4), (8, 785)])
def test_noise_of_windows_agrees_with_cpu(width: int, size: int) -> None:
    given = random_draws(9, width, size)._asdict()
    drawn, expected = ops.window_noise(**on_gpu(given)), ops.window_noise(**given)
    assert torch.equal(drawn.uniforms.cpu(), expected.uniforms)
    same(drawn, expected, 2e-6)


@pytest.mark.parametrize("size", [1, 4, 785, 4096])
def test_noise_agrees_with_cpu(size: int) -> None:
    given = drawing(130, size)
    same(ops.philox_uniform(**on_gpu(given)), ops.philox_uniform(**given))
    same(ops.philox_normal(**on_gpu(given)), ops.philox_normal(**given), 2e-6)


@pytest.mark.parametrize(
    ("size", "dtype"), [(1, torch.float32), (7, torch.float16), (256, torch.bfloat16)]
)
def test_target_means_agree_with_cpu_and_twin(size: int, dtype: torch.dtype) -> None:
    given = guiding(9, size, dtype)
    means = ops.target_means(**on_gpu(given))
    same(means, ops.target_means(**given), 1e-5)
    same(means, reference.target_means(**given), 1e-5)


@pytest.mark.parametrize(
    ("batch", "entries", "size", "dtype"),
    [
        (1, 1, 1, torch.float32),
        (1, 8, 65_536, torch.bfloat16),
        (200, 9, 7, torch.float16),
        (200, 9, 513, torch.float32),
        (1, 8, 784, torch.float16),
    ],
)
def test_noting_agrees_with_twin(batch: int, entries: int, size: int, dtype: torch.dtype) -> None:
    note = random_note(batch, entries, (size,), dtype=dtype, bad=0.2, seed=size)._asdict()
    given = on_gpu(note)
    reference.note_nonfinite_(**note)
    ops.note_nonfinite_(**given)
    same(given["failed"], note["failed"])


@pytest.mark.parametrize(
    ("batch", "width", "size"), [(1, 1, 1), (1, 8, 7), (300, 3, 257), (300, 3, 784), (1, 8, 16_385)]
)
def test_response_sums_agree_with_twin(batch: int, width: int, size: int) -> None:
    response = random_response(batch, width, (size,), seed=size)._asdict()
    same(ops.response_sums(**on_gpu(response)), reference.response_sums(**response), 1e-5)


@EACH
def test_every_op_agrees_with_the_cpu_and_repeats_itself(call: str) -> None:
    op, arguments = CALLS[call]
    given = on_gpu(arguments)
    first = op(**given)
    same(first, op(**arguments), 1e-5)
    for _ in range(20):
        same(op(**given), first)


# --- torch integration ---------------------------------------------------------------------------


@EACH
def test_every_op_can_be_captured(call: str) -> None:
    """Which also shows that it neither waits nor looks at values."""
    op, arguments = CALLS[call]
    given = on_gpu(arguments)
    expected = [value.clone() for value in several(op(**given))]
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        results = several(op(**given))
    for _ in range(3):
        for result in results:
            result.zero_()
        graph.replay()
        torch.cuda.synchronize()
        same(results, tuple(expected))


@EACH
def test_every_op_is_well_formed(call: str) -> None:
    op, arguments = CALLS[call]
    name = {"rolled": "roll_window_", "guessed": "first_guesses", "noted": "note_nonfinite_"}.get(
        op.__name__, op.__name__
    )
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
    op, arguments = CALLS[call]
    given = on_gpu(arguments)
    expected = op(**given)
    with Observer():
        same(op(**given), expected)
    operator.connect(exchange=False)
    try:
        with torch.cuda.stream(torch.cuda.Stream()):
            same(op(**given), expected)
    finally:
        operator.connect()


def test_threads_on_streams_of_their_own_do_not_disturb_each_other() -> None:
    failures = []

    def work(call: str) -> None:
        op, arguments = CALLS[call]
        try:
            with torch.cuda.stream(torch.cuda.Stream()):
                given = on_gpu(arguments)
                expected = op(**given)
                for _ in range(200):
                    same(op(**given), expected)
        except Exception as error:  # a thread's own would be lost
            failures.append((call, error))

    threads = [threading.Thread(target=work, args=(call,)) for call in CALLS]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []


def test_memory_stays_flat() -> None:
    calls = [(op, on_gpu(arguments)) for op, arguments in CALLS.values()]
    for op, given in calls:
        op(**given)
    before = torch.cuda.memory_allocated()
    for _ in range(1000):
        for op, given in calls:
            op(**given)
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
    served = operator.fallback(CONTRACTS["verify_window"], reference.verify_window)
    same(served(*given.values()), ops.verify_window(**given), 1e-5)
