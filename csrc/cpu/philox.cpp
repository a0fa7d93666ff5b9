// SPDX-License-Identifier: Apache-2.0
// Rows of counter-based normals and uniforms on the CPU.
#include "free/philox.h"

#include <algorithm>

#include "cpu/kernels.h"

namespace free_dit::cpu {
namespace {

// Known answers of Random123, checked by the compiler.
constexpr bool equal(Philox4 a, Philox4 b) {
  return a.x == b.x && a.y == b.y && a.z == b.z && a.w == b.w;
}
static_assert(equal(philox4x32({0, 0, 0, 0}, 0),
                    {0x6627e8d5u, 0xe169c58du, 0xbc57ac4cu, 0x9b00dbd8u}));
static_assert(equal(philox4x32({0x243f6a88u, 0x85a308d3u, 0x13198a2eu, 0x03707344u},
                               0x299f31d0a4093822u),
                    {0xd16cfe09u, 0x94fdcceb, 0x5001e420u, 0x24126ea1u}));

// Elements below which starting threads costs more than it saves.
constexpr std::int64_t kParallelElements = std::int64_t{1} << 18;

// Counter blocks computed side by side, one vector lane each.
constexpr int kLanes = 16;
constexpr std::int64_t kTile = 4 * kLanes;

struct Row {
  std::uint64_t key;
  std::uint32_t transition, round, purpose;
};

FREE_HOST_DEVICE Philox4 words_of(const Row& row, std::uint32_t block) {
  return philox4x32({block, row.transition, row.round, row.purpose}, row.key);
}

// The words of a tile are kept apart by position, so that every loop runs over lanes; the last loop
// puts them in element order.
FREE_SIMD_CLONES void normal_tile(const Row& row, std::uint32_t first_block, float* out) {
  float value[4][kLanes];
#pragma omp simd
  for (int lane = 0; lane < kLanes; ++lane) {
    const Philox4 word = words_of(row, first_block + static_cast<std::uint32_t>(lane));
    const Pair head = box_muller(word.x, word.y);
    const Pair tail = box_muller(word.z, word.w);
    value[0][lane] = head.first;
    value[1][lane] = head.second;
    value[2][lane] = tail.first;
    value[3][lane] = tail.second;
  }
  for (int lane = 0; lane < kLanes; ++lane) {
    for (int word = 0; word < 4; ++word) {
      out[4 * lane + word] = value[word][lane];
    }
  }
}

void uniform_tile(const Row& row, std::uint32_t first_block, int blocks, float* out) {
  for (int lane = 0; lane < blocks; ++lane) {
    const Philox4 word = words_of(row, first_block + static_cast<std::uint32_t>(lane));
    out[4 * lane] = unit_uniform(word.x);
    out[4 * lane + 1] = unit_uniform(word.y);
    out[4 * lane + 2] = unit_uniform(word.z);
    out[4 * lane + 3] = unit_uniform(word.w);
  }
}

template <class FillTile>
void fill_rows(const Draws& d, FillTile&& fill_tile) {
#pragma omp parallel for if (d.rows > 1 && d.rows * d.size >= kParallelElements)
  for (std::int64_t r = 0; r < d.rows; ++r) {
    const Row row{static_cast<std::uint64_t>(d.seeds[r]),
                  static_cast<std::uint32_t>(d.transition[r]),
                  static_cast<std::uint32_t>(d.round[r]), d.purpose};
    float* out = d.out + r * d.size;
    for (std::int64_t i = 0; i < d.size; i += kTile) {
      const std::int64_t count = std::min(kTile, d.size - i);
      const auto first_block = static_cast<std::uint32_t>(i / 4);
      const int blocks = static_cast<int>((count + 3) / 4);
      if (count == kTile) {
        fill_tile(row, first_block, blocks, out + i);
      } else {
        float tile[kTile];
        fill_tile(row, first_block, blocks, tile);
        std::copy_n(tile, count, out + i);
      }
    }
  }
}

}  // namespace

void philox_normal(const Draws& draws) {
  fill_rows(draws, [](const Row& row, std::uint32_t first_block, int, float* out) {
    normal_tile(row, first_block, out);
  });
}

void philox_uniform(const Draws& draws) { fill_rows(draws, uniform_tile); }

const char* simd_level() {
#if defined(__x86_64__) && defined(__linux__) && defined(__GNUC__)
  if (__builtin_cpu_supports("avx512f")) {
    return "avx512f";
  }
  if (__builtin_cpu_supports("avx2")) {
    return "avx2";
  }
#endif
  return "baseline";
}

}  // namespace free_dit::cpu
