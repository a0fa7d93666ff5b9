// SPDX-License-Identifier: Apache-2.0
// roll_window on the CPU: tile by tile, transition after transition.
#include <algorithm>

#include "cpu/kernels.h"
#include "free/roll.h"

namespace free_dit::cpu {
namespace {

// Elements of the batch below which starting threads costs more than it saves.
constexpr std::int64_t kParallelElements = std::int64_t{1} << 20;

// Elements of a state that are rolled through the whole window before the next ones are. The five
// rows of a transition stay in the first-level cache, so a state is read back from there and not
// from memory. Kept in registers, a few vectors at a time, it would make every row of the window a
// stream of its own, more than a prefetcher follows: half the speed beyond the second-level cache.
constexpr std::int64_t kTile = 1024;

FREE_SIMD_CLONES void roll_row(Coefficients c, const float* state, const float* guess,
                               const float* noise, std::int64_t count, float* mean, float* next) {
#pragma omp simd
  for (std::int64_t i = 0; i < count; ++i) {
    const Rolled rolled = roll(c, state[i], guess[i], noise[i]);
    mean[i] = rolled.mean;
    next[i] = rolled.state;
  }
}

void roll_tile(const Roll& r, std::int64_t b, std::int64_t first) {
  const std::int64_t count = std::min(kTile, r.size - first);
  float* state = r.states + b * (r.steps + 1) * r.size + first;
  std::copy_n(r.x + b * r.size + first, count, state);
  for (std::int64_t j = 0; j < r.steps; ++j) {
    const std::int64_t step = b * r.steps + j;
    const std::int64_t at = step * r.size + first;
    float* next = state + r.size;
    roll_row({r.a[step], r.b[step], r.sigma[step]}, state, r.guess + at, r.noise + at, count,
             r.means + at, next);
    state = next;
  }
}

}  // namespace

void roll_window(const Roll& r) {
  const std::int64_t tiles = (r.size + kTile - 1) / kTile;
#pragma omp parallel for collapse(2) if (r.batch * (r.steps + 1) * r.size >= kParallelElements)
  for (std::int64_t b = 0; b < r.batch; ++b) {
    for (std::int64_t tile = 0; tile < tiles; ++tile) {
      roll_tile(r, b, tile * kTile);
    }
  }
}

}  // namespace free_dit::cpu
