"""The CUDA kernels on a GPU, against the twins and the CPU's kernels; `make sanitize` runs these
under compute-sanitizer. What the kernels compute is tested without a GPU in test_cuda_kernels,
test_cuda_windows, test_cuda_rows.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable
from functools import wraps
from typing import Any

import pytest
import torch
from torch import Tensor

from free import ops, reference
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
Arguments = tuple[Any, ...]


def on_gpu(arguments: Arguments) -> Arguments:
    return tuple(value.cuda() if isinstance(value, Tensor) else value for value in arguments)


def several(result: Any) -> tuple[Tensor, ...]:
    return (result,) if isinstance(result, Tensor) else tuple(result)


def same(actual: Any, expected: Any, tolerance: float = 0.0) -> None:
    for value, other in zip(several(actual), several(expected), strict=True):
        limits = {"rtol": tolerance, "atol": tolerance} if value.is_floating_point() else {}
        torch.testing.assert_close(value.cpu(), other.cpu(), equal_nan=True, **limits)


def verifying(batch: int, width: int, size: int, seed: int = 0) -> Arguments:
    window = random_window(batch, width, (size,), delta=0.5, ragged=True, seed=seed)
    return tuple(spoil_beyond_length(window, math.nan))


def rolled(*arguments: Any) -> tuple[Tensor, ...]:
    """States, means and guesses, as roll_window_ leaves them in copies."""
    return Roll(*arguments).by(ops.roll_window_)


def guessed(*arguments: Any) -> tuple[Tensor, ...]:
    """What first_guesses writes."""
    return without_what_is_to_be_rolled(ops.first_guesses(*arguments))


def drawing(rows: int, size: int) -> Arguments:
    return (torch.randint(-(2**63), 2**63 - 1, (rows,)), *counters(rows), 1, size)


def counters(rows: int) -> Tensor:
    return torch.randint(0, 2**32, (2, rows))


def guiding(rows: int, size: int, dtype: torch.dtype) -> Arguments:
    eps = torch.randn(2 * rows, 4, size).to(dtype)
    given = (torch.randn(rows, 4, size), eps, torch.rand(rows), torch.randn(rows), 4.0, 3)
    return (*given, 0.5 + torch.rand(rows), torch.rand(rows))


@wraps(ops.note_nonfinite_)
def noted(failed: Tensor, *rest: Any) -> Tensor:
    """What is in ``failed`` afterwards; it stays as it is."""
    failed = failed.clone()
    ops.note_nonfinite_(failed, *rest)
    return failed


def recycling(batch: int, width: int) -> Arguments:
    length = torch.randint(1, width + 1, (batch,), dtype=torch.int32)
    return (length, (1 + torch.rand(batch) * length).int().clamp(max=length), width, True)


def relaxing(batch: int, width: int, size: int) -> Arguments:
    spent = torch.rand(batch).double() * 0.1
    return (*verifying(batch, width, size), None, spent, "allow", 1.5, 0.2)


#: An op with its arguments on the CPU; each shape of launch is among them.
CALLS: dict[str, tuple[Callable[..., Any], Arguments]] = {
    "reflection": (ops.verify_window, (*verifying(3, 8, 784), "reflection")),
    "reflection, wide": (ops.verify_window, (*verifying(1, 8, 16_384), "reflection")),
    "block": (ops.verify_window, (*verifying(3, 8, 785), "block")),
    "block, wide": (ops.verify_window, (*verifying(2, 9, 8191), "block")),
    "relaxed": (ops.verify_window_relaxed, relaxing(4, 5, 300)),
    "window": (ops.window_noise, random_draws(3, 8, 1001)),
    "window, first round": (ops.window_noise, random_draws(2, 8, 784, rounds=False)),
    "guesses": (guessed, random_guesses(5, 7, (1001,))),
    "guesses, whole quads": (guessed, random_guesses(2, 7, (784,))),
    "roll": (rolled, random_roll(2, 7, (1001,))),
    "roll, changes": (rolled, random_roll(9, 7, (784,), "adds", (1, 6))),
    "normal": (ops.philox_normal, drawing(5, 1001)),
    "uniform": (ops.philox_uniform, drawing(7, 1)),
    "means": (ops.target_means, (*guiding(6, 77, torch.float16)[:6], None, None)),
    "means and image": (ops.target_means, guiding(6, 77, torch.bfloat16)),
    "note": (noted, random_note(40, 3, (785,), dtype=torch.bfloat16)),
    "note, wide": (noted, random_note(1, 8, (65_536,), low=False, bad=0.3)),
    "response": (ops.response_sums, random_response(40, 5, (785,))),
    "response, wide": (ops.response_sums, random_response(2, 9, (16_384,))),
    "response, no drafts": (ops.response_sums, random_response(3, 1, (16,))),
    "rows": (ops.recycled_rows, recycling(40, 9)),
}
EACH = pytest.mark.parametrize("call", CALLS)

# --- what is computed ----------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1, 7, 513, 784, 4096, 16_385])
@pytest.mark.parametrize(("batch", "width"), [(1, 1), (1, 8), (5, 4), (300, 3)])
@EVERY
def test_verifying_agrees_with_cpu_and_twin(
    verifier: str, batch: int, width: int, size: int
) -> None:
    arguments = (*verifying(batch, width, size, seed=size), verifier)
    given = on_gpu(arguments)
    verified = ops.verify_window(*given)
    same(verified, ops.verify_window(*arguments), 2e-6)
    same(verified, reference.verify_window(*given), 1e-5)


@pytest.mark.parametrize("changes", CHANGES)
@pytest.mark.parametrize("size", [1, 16, 1027])
@pytest.mark.parametrize("drafts", [0, 1, 7])
def test_rolling_agrees_with_cpu(drafts: int, size: int, changes: str | None) -> None:
    window = random_roll(3, drafts, (size,), changes)
    same(rolled(*on_gpu(window)), rolled(*window), 1e-5)


@pytest.mark.parametrize("size", [1, 16, 1027])
@pytest.mark.parametrize("drafts", [0, 1, 7])
def test_first_guesses_agree_with_cpu_and_read_no_other_rows(drafts: int, size: int) -> None:
    given = random_guesses(9, drafts, (size,))
    same(guessed(*on_gpu(given)), guessed(*given), 1e-5)
    nearest = given.row.clone()
    given.row[0], nearest[0] = 2**62, len(given.past_x) - 1
    same(guessed(*on_gpu(given)), guessed(*given._replace(row=nearest)), 1e-5)


@pytest.mark.parametrize("size", [1, 4, 785])
@pytest.mark.parametrize("width", [1, 2, 8])
def test_noise_of_windows_agrees_with_cpu(width: int, size: int) -> None:
    given = random_draws(9, width, size)
    drawn, expected = ops.window_noise(*on_gpu(given)), ops.window_noise(*given)
    assert torch.equal(drawn.uniforms.cpu(), expected.uniforms)
    same(drawn, expected, 2e-6)


@pytest.mark.parametrize("size", [1, 4, 785, 4096])
def test_noise_agrees_with_cpu(size: int) -> None:
    arguments = drawing(130, size)
    same(ops.philox_uniform(*on_gpu(arguments)), ops.philox_uniform(*arguments))
    same(ops.philox_normal(*on_gpu(arguments)), ops.philox_normal(*arguments), 2e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("size", [1, 7, 256])
def test_target_means_agree_with_twin(size: int, dtype: torch.dtype) -> None:
    arguments = guiding(9, size, dtype)
    same(ops.target_means(*on_gpu(arguments)), reference.target_means(*arguments), 1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("size", [1, 7, 513, 784, 65_536])
@pytest.mark.parametrize(("batch", "entries"), [(1, 1), (1, 8), (200, 9)])
def test_noting_agrees_with_twin(batch: int, entries: int, size: int, dtype: torch.dtype) -> None:
    note = random_note(batch, entries, (size,), dtype=dtype, bad=0.2, seed=size)
    given = on_gpu(note)
    reference.note_nonfinite_(*note)
    ops.note_nonfinite_(*given)
    same(given[0], note.failed)


@pytest.mark.parametrize("size", [1, 7, 257, 784, 16_385])
@pytest.mark.parametrize(("batch", "width"), [(1, 1), (1, 8), (300, 3)])
def test_response_sums_agree_with_twin(batch: int, width: int, size: int) -> None:
    response = random_response(batch, width, (size,), seed=size)
    same(ops.response_sums(*on_gpu(response)), reference.response_sums(*response), 1e-5)


@EACH
def test_every_op_agrees_with_the_cpu_and_repeats_itself(call: str) -> None:
    op, arguments = CALLS[call]
    given = on_gpu(arguments)
    first = op(*given)
    same(first, op(*arguments), 1e-5)
    for _ in range(20):
        same(op(*given), first)


# --- torch integration ---------------------------------------------------------------------------


@EACH
def test_every_op_can_be_captured(call: str) -> None:
    """Which also shows that it neither waits nor looks at values."""
    op, arguments = CALLS[call]
    given = on_gpu(arguments)
    expected = [value.clone() for value in several(op(*given))]
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        results = several(op(*given))
    for _ in range(3):
        for result in results:
            result.zero_()
        graph.replay()
        torch.cuda.synchronize()
        same(results, tuple(expected))


@EACH
def test_every_op_is_well_formed(call: str) -> None:
    op, arguments = CALLS[call]
    checks = ("test_schema", "test_autograd_registration", "test_faketensor")
    name = {"rolled": "roll_window_", "guessed": "first_guesses"}.get(op.__name__, op.__name__)
    entry = getattr(torch.ops.free, name)
    torch.library.opcheck(entry, on_gpu(arguments), test_utils=checks)


def test_threads_on_streams_of_their_own_do_not_disturb_each_other() -> None:
    failures = []

    def work(call: str) -> None:
        op, arguments = CALLS[call]
        try:
            with torch.cuda.stream(torch.cuda.Stream()):
                given = on_gpu(arguments)
                expected = op(*given)
                for _ in range(200):
                    same(op(*given), expected)
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
        op(*given)
    before = torch.cuda.memory_allocated()
    for _ in range(1000):
        for op, given in calls:
            op(*given)
    assert torch.cuda.memory_allocated() == before


def test_a_window_wider_than_compiled_for() -> None:
    arguments = on_gpu((*verifying(1, 257, 2), "reflection"))
    with pytest.raises(ValueError, match="^states: expected at most 256 rows a window on CUDA"):
        ops.verify_window(*arguments)


def test_tensors_on_two_devices() -> None:
    arguments = on_gpu((*verifying(1, 4, 2), "reflection"))
    with pytest.raises(ValueError, match="^noise: expected a tensor on cuda:0, got one on cpu$"):
        ops.verify_window(*arguments[:6], arguments[6].cpu(), arguments[7])
