"""The text of the CUDA kernels on rows of a teacher call, executed on the CPU."""

import math

import pytest
import torch

from free import ops, reference
from tests.ops.examples import Example
from tests.rows import (
    NEVER,
    earliest,
    noted,
    random_asking,
    random_innovations,
    random_means,
    random_note,
    random_recycling,
    random_response,
)
from tests.shim import NEEDS_COMPILER, Kernels, same

pytestmark = NEEDS_COMPILER

# --- target_means --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("shape", "dtype", "scale", "channels", "clip"),
    [
        ((4, 1, 1), torch.float32, None, None, None),
        ((4, 3, 3), torch.float16, 4.0, 3, 0.5),
        ((4, 2, 2), torch.bfloat16, 1.5, None, 0.5),
        ((5, 7), torch.float32, 0.3, 1, 0.5),
        ((4, 8, 8), torch.float16, None, None, 0.5),
        ((4, 8, 8), torch.float32, 4.0, 3, None),
        ((4, 8, 8), torch.bfloat16, 0.3, 1, None),
    ],
)
def test_target_means_agree_with_twin(kernels, shape, dtype, scale, channels, clip) -> None:
    given = random_means(4, shape, dtype, (scale, channels), clip)
    results = kernels.target_means(**given)
    same(results, reference.target_means(**given), 1e-5)
    same(results, ops.target_means(**given), 1e-5)
    with kernels.on(shift=1):
        same(kernels.target_means(**given), results)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_every_16_bit_number_is_widened_exactly(kernels: Kernels, dtype: torch.dtype) -> None:
    eps = torch.arange(-(2**15), 2**15, dtype=torch.int16).view(dtype).view(1, 2**16)
    columns = torch.tensor([[0.0, 1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 1.0]]).T.contiguous()
    x, k = torch.zeros(1, 2**16), torch.zeros(1, dtype=torch.int64)
    for means in (kernels.target_means, ops.target_means):
        same(means(x, eps, k, columns)[:3], [eps.float()] * 3)


# --- note_nonfinite_ -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("batch", "entries", "size", "dtype", "low"),
    [
        (1, 1, 1, torch.float32, False),
        (1, 8, 7, torch.bfloat16, True),
        (13, 3, 16, torch.float16, False),
        (13, 3, 513, torch.float16, True),
        (1, 8, 512, torch.float32, True),
        (13, 3, 1500, torch.bfloat16, True),
        (13, 3, 1500, torch.float32, False),
    ],
)
def test_noting_agrees_with_twin(kernels, batch, entries, size, dtype, low) -> None:
    note = random_note(batch, entries, (size,), dtype=dtype, low=low, seed=size)
    expected = noted(reference.note_nonfinite_, note)
    assert batch == 1 or not torch.equal(expected, note.failed)
    for setting in ({}, {"shift": 1}, {"descending": True}):
        with kernels.on(**setting):
            assert torch.equal(noted(kernels.note_nonfinite_, note), expected)


@pytest.mark.parametrize("sample", [-(2**63), -1, 2, 2**63 - 1])
def test_a_sample_out_of_range_reaches_no_other_memory(kernels: Kernels, sample: int) -> None:
    values = torch.full((2, 5), math.nan)
    assert earliest(kernels.note_nonfinite_, values, [3, 3], [sample, 1], [NEVER, NEVER]) == [
        NEVER,
        3,
    ]


# --- response_sums -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("batch", "width", "size"),
    [(1, 1, 1), (2, 2, 7), (1, 9, 16), (13, 4, 256), (13, 4, 257), (2, 2, 1500)],
)
def test_sums_agree_with_twin(kernels: Kernels, batch: int, width: int, size: int) -> None:
    response = random_response(batch, width, (size,), seed=width + size)
    same(
        kernels.response_sums(**response._asdict()),
        reference.response_sums(**response._asdict()),
        1e-6,
    )


@pytest.mark.parametrize("size", [1500, 1501])  # whole quads and not
def test_order_alignment_and_batch_change_no_bit(kernels: Kernels, size: int) -> None:
    response = random_response(9, 7, (size,), seed=1)
    sums = kernels.response_sums(**response._asdict())
    for setting in ({}, {"descending": True}, {"shift": 1}, {"processors": 10_000}):
        with kernels.on(**setting):
            same(kernels.response_sums(**response._asdict()), sums)
    for b in range(9):
        one = torch.tensor([b])
        same(kernels.response_sums(**response.of(one)._asdict()), [column[one] for column in sums])


def test_a_wider_window_changes_no_bit(kernels: Kernels) -> None:
    response = random_response(9, 7, (600,), seed=1)
    windows = {name: getattr(response, name) for name in ("states", "guess")}
    kept = response._replace(
        **{name: window[:, :4].contiguous() for name, window in windows.items()},
        advance=response.advance.clamp(max=3),
    )
    assert len(set(kept.counts())) > 2
    wide = response._replace(advance=kept.advance)
    same(kernels.response_sums(**kept._asdict()), kernels.response_sums(**wide._asdict()))


@pytest.mark.parametrize("row", [-(2**63), -1, 9, 2**63 - 1])
def test_a_row_out_of_range_reaches_no_other_memory(kernels: Kernels, row: int) -> None:
    response = random_response(2, 3, (10,))
    for name in ("states", "guess", "past_x", "past_guess"):
        getattr(response, name).nan_to_num_(1.0)
    response.advance[:] = 3
    response.length[:] = 3
    response.known[:] = 3
    nearest = response._replace(row=response.row.clone())
    response.row[0, 1], nearest.row[0, 1] = row, max(0, min(8, row))
    same(
        kernels.response_sums(**response._asdict()),
        reference.response_sums(**nearest._asdict()),
        1e-6,
    )


@pytest.mark.parametrize("name", ["known", "length", "advance"])
def test_a_count_out_of_range_reaches_no_other_memory(kernels: Kernels, name: str) -> None:
    response = random_response(1, 4, (10,))
    for tensor in response[:4]:
        tensor.nan_to_num_(1.0)
    for column in ("known", "length", "advance"):
        getattr(response, column)[:] = 100
    limits = torch.iinfo(getattr(response, name).dtype)
    for value in (limits.min, -1, 0, limits.max):
        getattr(response, name)[:] = value
        nearest = response._replace(
            known=response.known.clamp(0, 5), length=response.length.clamp(0, 4)
        )
        expected = reference.response_sums(**nearest._asdict())
        same(kernels.response_sums(**response._asdict()), expected, 1e-6)


# --- advance_samples_ ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("batch", "width", "discarded", "entries"),
    [(1, 1, False, 0), (2, 9, True, 3), (5, 40, False, 1), (33, 9, True, 0), (100, 2, True, 2)],
)
def test_advancing_agrees_with_twin_and_cpu(kernels, batch, width, discarded, entries) -> None:
    example = Example(
        "advance_samples_", random_recycling(batch, width, discarded, entries=entries)
    )
    for stride in (None, width, width + 3):
        example.given["stride"] = stride
        results = example.call(kernels.advance_samples_)
        same(results, example.by_twin())
        same(results, example.by_op())


def test_large_states_of_finished_samples_stay(kernels: Kernels) -> None:
    """Beyond a chunk, and beyond whole chunks."""
    for size in (4096, 9001):
        given = random_recycling(4, 3) | {"after": torch.randn(4, size), "x": torch.randn(4, size)}
        example = Example("advance_samples_", given)
        same(example.call(kernels.advance_samples_), example.by_twin())


# --- network_rows --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("batch", "width", "size", "listed", "null", "means"),
    [
        (1, 1, 1, False, None, False),
        (1, 1, 4, False, None, True),
        (3, 4, 16, True, 7, False),
        (3, 5, 255, False, 7, False),
        (3, 4, 255, True, None, True),
        (2, 8, 1028, True, None, True),
    ],
)
def test_gathering_agrees_with_twin(kernels, batch, width, size, listed, null, means) -> None:
    given = random_asking(batch, width, (size,), listed, null, means)
    expected = reference.network_rows(**given)
    for setting in ({}, {"descending": True}, {"shift": 1}):
        with kernels.on(**setting):
            same(kernels.network_rows(**given), expected)


@pytest.mark.parametrize("value", [-(2**63), -1, 9, 2**63 - 1])
def test_a_row_that_is_not_there_is_not_gathered(kernels: Kernels, value: int) -> None:
    """But the nearest one: what lies beyond is NaN."""
    given = random_asking(2, 4, (6,), True)
    for name, most in (("sample", 1), ("entry", 3), ("at", 8)):
        wrong, near = given[name].clone(), given[name].clone()
        wrong.view(-1)[0], near.view(-1)[0] = value, max(0, min(most, value))
        x, t, label, *_ = kernels.network_rows(**(given | {name: wrong}))
        same((x, t, label), reference.network_rows(**(given | {name: near}))[:3])


@pytest.mark.parametrize(("rows", "first"), [(40, 2), (1, 2), (3, 4)])
def test_a_span_of_other_rows_reaches_no_other_memory(
    kernels: Kernels, rows: int, first: int
) -> None:
    given = random_asking(2, 4, (6,), means=True) | {"rows": rows, "first": first}
    results = kernels.network_rows(**given)
    assert bool(results[0].isfinite().all() and results[-1].isfinite().all())


# --- drafter_rows --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rows", "size", "scaled", "null"),
    [(1, 1, False, None), (5, 16, True, 7), (5, 255, False, 7), (12, 1028, True, None)],
)
def test_innovations_agree_with_twin_and_cpu(kernels, rows, size, scaled, null) -> None:
    given = random_innovations(rows, (size,), scaled, null)
    expected = reference.drafter_rows(**given)
    same(ops.drafter_rows(**given), expected)
    for setting in ({}, {"descending": True}, {"shift": 1}):
        with kernels.on(**setting):
            same(kernels.drafter_rows(**given), expected)


@pytest.mark.parametrize("k", [-(2**63), -1, 9, 2**63 - 1])
def test_a_transition_that_is_not_there_is_not_looked_up(kernels: Kernels, k: int) -> None:
    given = random_innovations(3, (6,), True)
    wrong = given | {"k": torch.tensor([4, k, 5])}
    same(kernels.drafter_rows(**wrong), reference.drafter_rows(**wrong))
