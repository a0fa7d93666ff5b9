// SPDX-License-Identifier: Apache-2.0
// note_nonfinite_ on the CPU: the rows that are asked about, one after the other.
#include <algorithm>
#include <vector>

#include "cpu/kernels.h"

namespace free_dit::cpu {
namespace {

// NaN and inf are what has all bits of the exponent.
FREE_SIMD_CLONES bool is_finite_row(const std::uint32_t* row, std::int64_t size,
                                    std::uint32_t all) {
  std::uint32_t bad = 0;
#pragma omp simd reduction(| : bad)
  for (std::int64_t i = 0; i < size; ++i) {
    bad |= static_cast<std::uint32_t>((row[i] & all) == all);
  }
  return bad == 0;
}

FREE_SIMD_CLONES bool is_finite_row(const std::uint16_t* row, std::int64_t size,
                                    std::uint16_t all) {
  std::uint16_t bad = 0;
#pragma omp simd reduction(| : bad)
  for (std::int64_t i = 0; i < size; ++i) {
    bad |= static_cast<std::uint16_t>((row[i] & all) == all);
  }
  return bad == 0;
}

bool is_finite(const NoteNonfinite& n, std::int64_t row) {
  const std::int64_t first = row * n.size;
  switch (n.type) {
    case Float::kFloat16:
      return is_finite_row(static_cast<const std::uint16_t*>(n.values) + first, n.size, 0x7C00);
    case Float::kBfloat16:
      return is_finite_row(static_cast<const std::uint16_t*>(n.values) + first, n.size, 0x7F80);
    case Float::kFloat32:
      break;
  }
  return is_finite_row(static_cast<const std::uint32_t*>(n.values) + first, n.size, 0x7F800000u);
}

bool is_wanted(const NoteNonfinite& n, std::int64_t row) {
  const std::int64_t b = row / n.entries;
  const std::int64_t position = n.first + row % n.entries;
  return position < n.high[b] && (n.low == nullptr || position >= n.low[b]);
}

}  // namespace

void note_nonfinite(const NoteNonfinite& n) {
  const std::int64_t rows = n.batch * n.entries;
  std::vector<char> bad(static_cast<std::size_t>(rows));
#pragma omp parallel for if (rows * n.size >= kParallelElements)
  for (std::int64_t row = 0; row < rows; ++row) {
    bad[static_cast<std::size_t>(row)] = is_wanted(n, row) && !is_finite(n, row);
  }
  // One after the other: a sample may have several.
  for (std::int64_t row = 0; row < rows; ++row) {
    if (bad[static_cast<std::size_t>(row)] != 0) {
      std::int64_t* failed = n.failed + n.samples[row / n.entries];
      *failed = std::min(*failed, n.k[row]);
    }
  }
}

}  // namespace free_dit::cpu
