"""The text of the CUDA kernels on rows of a teacher call, executed on the CPU."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from free import reference
from tests import shim
from tests.rows import random_note, random_response
from tests.shim import Kernels, same
from tests.shim_rows import note_nonfinite_, response_sums

pytestmark = pytest.mark.skipif(shim.compiler() is None, reason="needs g++")

NEVER = torch.iinfo(torch.int64).max
DTYPES = pytest.mark.parametrize("dtype", shim.DTYPES)

# --- target_means --------------------------------------------------------------------------------


@pytest.mark.parametrize("image", [False, True])
@pytest.mark.parametrize(("scale", "channels"), [(None, None), (1.5, None), (4.0, 3), (0.3, 1)])
@DTYPES
@pytest.mark.parametrize("shape", [(4, 1, 1), (4, 3, 3), (4, 2, 2), (5, 7), (4, 8, 8)])
def test_target_means_agree_with_twin(
    kernels: Kernels,
    shape: tuple[int, ...],
    dtype: torch.dtype,
    scale: float | None,
    channels: int | None,
    image: bool,
) -> None:
    rows = 3
    eps = torch.randn(rows if scale is None else 2 * rows, *shape).to(dtype)
    arguments = (torch.randn(rows, *shape), eps, torch.rand(rows), torch.randn(rows))
    arguments = (*arguments, scale, channels)
    if image:
        arguments = (*arguments, 0.1 + torch.rand(rows), torch.rand(rows))
    means = kernels.target_means(*arguments)
    same(means, reference.target_means(*arguments), 1e-5)
    with kernels.on(shift=1):
        same(kernels.target_means(*arguments), means)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_every_16_bit_number_is_widened_exactly(kernels: Kernels, dtype: torch.dtype) -> None:
    eps = torch.arange(-(2**15), 2**15, dtype=torch.int16).view(dtype).view(1, 2**16)
    one, zero = torch.ones(1), torch.zeros(1)
    x = torch.zeros(1, 2**16)
    means = kernels.target_means(x, eps, zero, one, None, None, one, -one)
    same(means, (eps.float(), eps.float(), eps.float()))


# --- note_nonfinite_ -----------------------------------------------------------------------------

#: Single elements, odd ends, a chunk and its neighbours, whole and split quads.
SIZES = [1, 7, 16, 512, 513, 1500]


@pytest.mark.parametrize("low", [False, True])
@DTYPES
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(("batch", "entries"), [(1, 1), (1, 8), (13, 3)])
def test_noting_agrees_with_twin(
    kernels: Kernels, batch: int, entries: int, size: int, dtype: torch.dtype, low: bool
) -> None:
    note = random_note(batch, entries, (size,), dtype=dtype, low=low, seed=size)
    expected = note.failed.clone()
    reference.note_nonfinite_(*note._replace(failed=expected))
    assert batch == 1 or not torch.equal(expected, note.failed)
    for setting in ({}, {"shift": 1}, {"descending": True}):
        failed = note.failed.clone()
        with kernels.on(**setting):
            note_nonfinite_(kernels, *note._replace(failed=failed))
        assert torch.equal(failed, expected)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_any_element_counts(kernels: Kernels, value: float) -> None:
    size, each = 700, torch.arange(700)
    values = torch.zeros(size, size).fill_diagonal_(value)
    failed, zero = torch.full((size,), NEVER), torch.zeros_like(each)
    note_nonfinite_(kernels, failed, values, 5 + each, each, 0, zero, zero + 1)
    assert torch.equal(failed, 5 + each)


@DTYPES
def test_the_largest_and_smallest_numbers_are_finite(kernels: Kernels, dtype: torch.dtype) -> None:
    limits = torch.finfo(dtype)
    values = torch.tensor([[limits.max, limits.min, limits.smallest_normal / 2, -0.0]], dtype=dtype)
    failed, zero = torch.full((1,), NEVER), torch.zeros(1, dtype=torch.int64)
    note_nonfinite_(kernels, failed, values, zero, zero, 0, None, zero + 1)
    assert failed.item() == NEVER


def test_a_sample_named_twice_keeps_the_smallest(kernels: Kernels) -> None:
    values, each = torch.full((9, 600), math.nan), torch.arange(9)
    k = torch.tensor([8, 3, 9, 4, 2, 7, 1, 5, 6])
    for descending in (False, True):
        failed = torch.tensor([NEVER, 0, NEVER, 2])
        with kernels.on(descending=descending):
            note_nonfinite_(kernels, failed, values, k, each % 4, 0, None, torch.ones_like(each))
        assert failed.tolist() == [2, 0, 1, 2]


@pytest.mark.parametrize("sample", [-(2**63), -1, 2, 2**63 - 1])
def test_a_sample_out_of_range_reaches_no_other_memory(kernels: Kernels, sample: int) -> None:
    failed, one = torch.full((2,), NEVER), torch.ones(2, dtype=torch.int64)
    samples = torch.tensor([sample, 1])
    note_nonfinite_(kernels, failed, torch.full((2, 5), math.nan), 3 * one, samples, 0, None, one)
    assert failed.tolist() == [NEVER, 3]


# --- response_sums -------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1, 7, 16, 256, 257, 1500])
@pytest.mark.parametrize(("batch", "width"), [(1, 1), (2, 2), (1, 9), (13, 4)])
def test_sums_agree_with_twin(kernels: Kernels, batch: int, width: int, size: int) -> None:
    response = random_response(batch, width, (size,), seed=width + size)
    same(response_sums(kernels, *response), reference.response_sums(*response), 1e-6)


@pytest.mark.parametrize("size", [1500, 1501])  # whole quads and not
def test_order_alignment_and_batch_change_no_bit(kernels: Kernels, size: int) -> None:
    response = random_response(9, 7, (size,), seed=1)
    sums = response_sums(kernels, *response)
    for setting in ({}, {"descending": True}, {"shift": 1}, {"processors": 10_000}):
        with kernels.on(**setting):
            same(response_sums(kernels, *response), sums)
    for b in range(9):
        one = torch.tensor([b])
        same(response_sums(kernels, *response.of(one)), [column[one] for column in sums])


def test_a_wider_window_changes_no_bit(kernels: Kernels) -> None:
    response = random_response(9, 7, (600,), seed=1)
    windows = {name: getattr(response, name) for name in ("states", "guess")}
    kept = response._replace(
        **{name: window[:, :4].contiguous() for name, window in windows.items()},
        advance=response.advance.clamp(max=3),
    )
    assert len(set(kept.counts())) > 2
    wide = response._replace(advance=kept.advance)
    same(response_sums(kernels, *kept), response_sums(kernels, *wide))


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
    same(response_sums(kernels, *response), reference.response_sums(*nearest), 1e-6)


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
        expected = reference.response_sums(*nearest)
        same(response_sums(kernels, *response), expected, 1e-6)


# --- recycled_rows -------------------------------------------------------------------------------


@pytest.mark.parametrize("discarded", [False, True])
@pytest.mark.parametrize("width", [1, 2, 9, 40])
@pytest.mark.parametrize("batch", [1, 2, 5, 33, 100])
def test_recycled_rows_agree_with_twin(
    kernels: Kernels, batch: int, width: int, discarded: bool
) -> None:
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


#: What is wrong, in which kernel or header of it, the text, what stands there instead, and the test
#: that sees it.
BUGS: dict[str, tuple[str, str | None, str, str, Callable[[Kernels], None]]] = {
    "guides every channel": ("target_means.cu", None, "at + i < m.guided", "true", guides),
    "the image of what was not guided": (
        "target_means.cu",
        None,
        "image_of(x.v[i], eps.v[i], signal, noise)",
        "image_of(x.v[i], load<kWide>(said, at, m.size).v[i], signal, noise)",
        guides,
    ),
    "the image of another row": (
        "target_means.cu",
        None,
        "m.signal[place.row]",
        "m.signal[place.row == 0 ? 0 : place.row - 1]",
        guides,
    ),
    "notes rows before the first that is wanted": (
        "note_nonfinite.cu",
        None,
        "(n.low == nullptr || position >= n.low[b])",
        "true",
        notes,
    ),
    "notes the row behind the last that is wanted": (
        "note_nonfinite.cu",
        None,
        "position < n.high[b]",
        "position <= n.high[b]",
        notes,
    ),
    "counts positions from 0": (
        "note_nonfinite.cu",
        None,
        "n.first + row % n.entries",
        "row % n.entries",
        notes,
    ),
    "notes the largest transition": (
        "note_nonfinite.cu",
        None,
        "atomicMin(reinterpret_cast<long long*>(n.failed + sample), ",
        "n.failed[sample] = std::max<long long>(n.failed[sample], ",
        notes,
    ),
    "the last one to come is noted": (
        "note_nonfinite.cu",
        None,
        "atomicMin(reinterpret_cast<long long*>(n.failed + sample), ",
        "n.failed[sample] = (",
        keeps_the_smallest,
    ),
    "a row's last chunk is not looked at": (
        "note_nonfinite.cu",
        None,
        "chunks = ceil_div(n.size, kChunk)",
        "chunks = n.size < kChunk ? 1 : n.size / kChunk",
        looks_everywhere,
    ),
    "infinity passes": (
        "note_nonfinite.cu",
        None,
        "!std::isfinite(values[q].v[i])",
        "std::isnan(values[q].v[i])",
        looks_everywhere,
    ),
    "notes samples that are not there": (
        "note_nonfinite.cu",
        None,
        "sample >= n.known",
        "sample > n.known",
        keeps_to_its_samples,
    ),
    "counts one transition too many": (
        "response_sums.cu",
        "free/evidence.h",
        "known < 1 ? 0 : known - 1",
        "known < 1 ? 0 : known",
        sums,
    ),
    "takes the last transition for a draft": (
        "response_sums.cu",
        "free/evidence.h",
        "count = length - 1;",
        "count = length;",
        sums,
    ),
    "the past of the transition before": (
        "response_sums.cu",
        None,
        "r.row[b * r.entries + j + 1]",
        "r.row[b * r.entries + j]",
        sums,
    ),
    "a chunk is left out": (
        "response_sums.cu",
        None,
        "ceil_div(r.batch * (r.width - 1) * chunks, kWarps)",
        "ceil_div(r.batch * (r.width - 1) * chunks, kWarps) - 1",
        sums,
    ),
    "adds chunks that do not count": (
        "response_sums.cu",
        None,
        "counted(r, b) * chunks",
        "(r.width - 1) * chunks",
        sums,
    ),
    "forgets nothing": (
        "response_sums.cu",
        None,
        "r.memory * r.dot[b]",
        "r.dot[b]",
        sums,
    ),
    "reads rows that are not there": (
        "response_sums.cu",
        None,
        "nearest(r.row[b * r.entries + j + 1], 0, r.past)",
        "r.row[b * r.entries + j + 1]",
        keeps_to_its_rows,
    ),
    "counts its own rows": ("recycled_rows.cu", None, "i < b;", "i <= b;", recycles),
}


@pytest.mark.parametrize("bug", BUGS)
def test_planted_bugs_are_caught(kernels: Kernels, bug: str, tmp_path: Path) -> None:
    kernel, header, old, new, check = BUGS[bug]
    check(kernels)
    broken = shim.build_with_bug(kernels, kernel, old, new, tmp_path, header)
    with pytest.raises((AssertionError, RuntimeError)):
        check(broken)
