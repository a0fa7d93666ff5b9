"""The text of the CUDA kernels on rows of a teacher call, executed on the CPU."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch

from free import ops, reference
from tests.rows import Note, random_note, random_response
from tests.shim import DTYPES, NEEDS_COMPILER, Bug, Kernels, assert_caught, same

pytestmark = NEEDS_COMPILER

NEVER = torch.iinfo(torch.int64).max
EACH_TYPE = pytest.mark.parametrize("dtype", DTYPES)

# --- target_means --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("shape", "dtype", "scale", "channels", "image"),
    [
        ((4, 1, 1), torch.float32, None, None, False),
        ((4, 3, 3), torch.float16, 4.0, 3, True),
        ((4, 2, 2), torch.bfloat16, 1.5, None, True),
        ((5, 7), torch.float32, 0.3, 1, True),
        ((4, 8, 8), torch.float16, None, None, True),
        ((4, 8, 8), torch.float32, 4.0, 3, False),
        ((4, 8, 8), torch.bfloat16, 0.3, 1, False),
    ],
)
def test_target_means_agree_with_twin(kernels, shape, dtype, scale, channels, image) -> None:
    rows = 3
    given: dict[str, Any] = {
        "x": torch.randn(rows, *shape),
        "eps": torch.randn(rows if scale is None else 2 * rows, *shape).to(dtype),
        "a": torch.rand(rows),
        "b": torch.randn(rows),
        "cfg_scale": scale,
        "cfg_channels": channels,
        "signal": 0.1 + torch.rand(rows) if image else None,
        "noise": torch.rand(rows) if image else None,
    }
    results = kernels.target_means(**given)
    written = 3 if image else 2
    same(results[:written], reference.target_means(**given)[:written], 1e-5)
    same(results[:written], ops.target_means(**given)[:written], 1e-5)
    with kernels.on(shift=1):
        same(kernels.target_means(**given), results)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_every_16_bit_number_is_widened_exactly(kernels: Kernels, dtype: torch.dtype) -> None:
    eps = torch.arange(-(2**15), 2**15, dtype=torch.int16).view(dtype).view(1, 2**16)
    one, zero = torch.ones(1), torch.zeros(1)
    x = torch.zeros(1, 2**16)
    for means in (kernels.target_means, ops.target_means):
        results = means(x, eps, zero, one, signal=one, noise=-one)
        same(results, (eps.float(), eps.float(), eps.float()))


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


def noted(op: Any, note: Note) -> torch.Tensor:
    """What is in ``failed`` afterwards."""
    failed = note.failed.clone()
    op(**note._replace(failed=failed)._asdict())
    return failed


def earliest(kernels: Kernels, values: torch.Tensor, k: Any, samples: Any, failed: Any) -> Any:
    """What is in ``failed`` after one row of each sample has been looked at."""
    failed, k, samples = (torch.as_tensor(column).clone() for column in (failed, k, samples))
    high = torch.ones_like(samples)
    given = Note(failed, samples, values, k, 0, None, high)
    return noted(kernels.note_nonfinite_, given).tolist()


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_any_element_counts(kernels: Kernels, value: float) -> None:
    size, each = 700, torch.arange(700)
    values = torch.zeros(size, size).fill_diagonal_(value)
    found = earliest(kernels, values, 5 + each, each, torch.full((size,), NEVER))
    assert found == list(range(5, 705))


@EACH_TYPE
def test_the_largest_and_smallest_numbers_are_finite(kernels: Kernels, dtype: torch.dtype) -> None:
    limits = torch.finfo(dtype)
    values = torch.tensor([[limits.max, limits.min, limits.smallest_normal / 2, -0.0]], dtype=dtype)
    assert earliest(kernels, values, [0], [0], [NEVER]) == [NEVER]


def test_a_sample_named_twice_keeps_the_smallest(kernels: Kernels) -> None:
    values, each = torch.full((9, 600), math.nan), torch.arange(9)
    k = torch.tensor([8, 3, 9, 4, 2, 7, 1, 5, 6])
    for descending in (False, True):
        with kernels.on(descending=descending):
            found = earliest(kernels, values, k, each % 4, [NEVER, 0, NEVER, 2])
        assert found == [2, 0, 1, 2]


@pytest.mark.parametrize("sample", [-(2**63), -1, 2, 2**63 - 1])
def test_a_sample_out_of_range_reaches_no_other_memory(kernels: Kernels, sample: int) -> None:
    values = torch.full((2, 5), math.nan)
    assert earliest(kernels, values, [3, 3], [sample, 1], [NEVER, NEVER]) == [NEVER, 3]


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


# --- recycled_rows -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("batch", "width", "discarded"),
    [(1, 1, False), (2, 9, True), (5, 40, False), (33, 9, True), (100, 2, True)],
)
def test_recycled_rows_agree_with_twin(kernels, batch, width, discarded) -> None:
    length = torch.randint(1, width + 1, (batch,), dtype=torch.int32)
    advance = (1 + torch.rand(batch) * length).int().clamp(max=length)
    for stride in (None, width, width + 3):
        arguments = (length, advance, width, discarded, stride)
        same(kernels.recycled_rows(*arguments), reference.recycled_rows(*arguments))


# --- planted bugs --------------------------------------------------------------------------------


def guides(kernels: Kernels) -> None:
    test_target_means_agree_with_twin(kernels, (4, 3, 3), torch.float16, 4.0, 3, True)


def notes(kernels: Kernels) -> None:
    test_noting_agrees_with_twin(kernels, 13, 3, 513, torch.float16, True)


def looks_everywhere(kernels: Kernels) -> None:
    test_any_element_counts(kernels, math.inf)


def keeps_to_its_samples(kernels: Kernels) -> None:
    test_a_sample_out_of_range_reaches_no_other_memory(kernels, 2)


def keeps_the_smallest(kernels: Kernels) -> None:
    test_a_sample_named_twice_keeps_the_smallest(kernels)


def sums(kernels: Kernels) -> None:
    test_sums_agree_with_twin(kernels, 13, 4, 257)


def keeps_to_its_rows(kernels: Kernels) -> None:
    test_a_row_out_of_range_reaches_no_other_memory(kernels, 9)


def recycles(kernels: Kernels) -> None:
    test_recycled_rows_agree_with_twin(kernels, 33, 9, True)


BUGS: dict[str, Bug] = {
    "guides every channel": ("target_means.cu", "at + i < m.guided", "true", guides),
    "the image of what was not guided": (
        "target_means.cu",
        "image_of(x.v[i], eps.v[i], signal, noise)",
        "image_of(x.v[i], load<kWide>(said, at, m.size).v[i], signal, noise)",
        guides,
    ),
    "the image of another row": (
        "target_means.cu",
        "m.signal[place.row]",
        "m.signal[place.row == 0 ? 0 : place.row - 1]",
        guides,
    ),
    "notes rows before the first that is wanted": (
        "note_nonfinite.cu",
        "(n.low == nullptr || position >= n.low[b])",
        "true",
        notes,
    ),
    "notes the row behind the last that is wanted": (
        "note_nonfinite.cu",
        "position < n.high[b]",
        "position <= n.high[b]",
        notes,
    ),
    "counts positions from 0": (
        "note_nonfinite.cu",
        "n.first + row % n.entries",
        "row % n.entries",
        notes,
    ),
    "notes the largest transition": (
        "note_nonfinite.cu",
        "atomicMin(reinterpret_cast<long long*>(n.failed + sample), ",
        "n.failed[sample] = std::max<long long>(n.failed[sample], ",
        notes,
    ),
    "the last one to come is noted": (
        "note_nonfinite.cu",
        "atomicMin(reinterpret_cast<long long*>(n.failed + sample), ",
        "n.failed[sample] = (",
        keeps_the_smallest,
    ),
    "a row's last chunk is not looked at": (
        "note_nonfinite.cu",
        "chunks = ceil_div(n.size, kChunk)",
        "chunks = n.size < kChunk ? 1 : n.size / kChunk",
        looks_everywhere,
    ),
    "infinity passes": (
        "note_nonfinite.cu",
        "!std::isfinite(values[q].v[i])",
        "std::isnan(values[q].v[i])",
        looks_everywhere,
    ),
    "notes samples that are not there": (
        "note_nonfinite.cu",
        "sample >= n.known",
        "sample > n.known",
        keeps_to_its_samples,
    ),
    "counts one transition too many": (
        "response_sums.cu free/evidence.h",
        "known < 1 ? 0 : known - 1",
        "known < 1 ? 0 : known",
        sums,
    ),
    "takes the last transition for a draft": (
        "response_sums.cu free/evidence.h",
        "count = length - 1;",
        "count = length;",
        sums,
    ),
    "the past of the transition before": (
        "response_sums.cu",
        "r.row[b * r.entries + j + 1]",
        "r.row[b * r.entries + j]",
        sums,
    ),
    "a chunk is left out": (
        "response_sums.cu",
        "ceil_div(r.batch * (r.width - 1) * chunks, kWarps)",
        "ceil_div(r.batch * (r.width - 1) * chunks, kWarps) - 1",
        sums,
    ),
    "adds chunks that do not count": (
        "response_sums.cu",
        "counted(r, b) * chunks",
        "(r.width - 1) * chunks",
        sums,
    ),
    "forgets nothing": ("response_sums.cu", "r.memory * r.dot[b]", "r.dot[b]", sums),
    "reads rows that are not there": (
        "response_sums.cu",
        "nearest(r.row[b * r.entries + j + 1], 0, r.past)",
        "r.row[b * r.entries + j + 1]",
        keeps_to_its_rows,
    ),
    "counts its own rows": ("recycled_rows.cu", "i < b;", "i <= b;", recycles),
}


@pytest.mark.parametrize("bug", BUGS)
def test_planted_bugs_are_caught(kernels: Kernels, bug: str, tmp_path: Path) -> None:
    assert_caught(kernels, BUGS[bug], tmp_path)
