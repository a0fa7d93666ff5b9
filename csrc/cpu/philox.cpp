// SPDX-License-Identifier: Apache-2.0
// Rows of counter-based normals and uniforms on the CPU, and those of a window.
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

// Drawing an element costs more than what other kernels do with one.
constexpr std::int64_t kParallelDraws = kParallelElements / 4;

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
void fill_row(const Row& row, std::int64_t size, float* out, const FillTile& fill_tile) {
  for (std::int64_t i = 0; i < size; i += kTile) {
    const std::int64_t count = std::min(kTile, size - i);
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

void fill_normals(const Row& row, std::int64_t size, float* out) {
  fill_row(row, size, out, [](const Row& of, std::uint32_t first_block, int, float* tile) {
    normal_tile(of, first_block, tile);
  });
}

void fill_uniforms(const Row& row, std::int64_t size, float* out) {
  fill_row(row, size, out, uniform_tile);
}

template <class Fill>
void draw(const Draws& d, const Fill& fill) {
#pragma omp parallel for if (d.rows > 1 && d.rows * d.size >= kParallelDraws)
  for (std::int64_t r = 0; r < d.rows; ++r) {
    fill({static_cast<std::uint64_t>(d.seeds[r]), static_cast<std::uint32_t>(d.transition[r]),
          static_cast<std::uint32_t>(d.round[r]), d.purpose},
         d.size, d.out + r * d.size);
  }
}

// Transition j of a sample's window; its noise also goes to `last` where it is the last one.
void draw_transition(const WindowNoise& d, std::int64_t b, std::int64_t j) {
  const Row row{static_cast<std::uint64_t>(d.seeds[b]), static_cast<std::uint32_t>(d.k[b] + j),
                d.rounds == nullptr ? 0u : static_cast<std::uint32_t>(d.rounds[b]), d.purpose};
  const std::int64_t wanted = wanted_of(d, b);
  const std::int64_t length = length_of(wanted);
  const std::int64_t final = length - 1;
  if (j == final) {
    d.wanted[b] = wanted;
    d.drafted[b] = length - 1;
    d.length[b] = static_cast<std::int32_t>(length);
  }
  float* last = d.last + b * d.size;
  if (j == d.width - 1) {
    if (j == final) {
      fill_normals(row, d.size, last);
    }
    return;
  }
  const std::int64_t draft = b * (d.width - 1) + j;
  fill_normals(row, d.size, d.noise + draft * d.size);
  d.uniforms[draft] = unit_uniform(words_of({row.key, row.transition, row.round, d.decision}, 0).x);
  if (j == final) {
    std::copy_n(d.noise + draft * d.size, d.size, last);
  }
}

}  // namespace

void philox_normal(const Draws& draws) { draw(draws, fill_normals); }

void philox_uniform(const Draws& draws) { draw(draws, fill_uniforms); }

void window_noise(const WindowNoise& d) {
#pragma omp parallel for collapse(2) if (d.batch * d.width * d.size >= kParallelDraws)
  for (std::int64_t b = 0; b < d.batch; ++b) {
    for (std::int64_t j = 0; j < d.width; ++j) {
      draw_transition(d, b, j);
    }
  }
}

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
