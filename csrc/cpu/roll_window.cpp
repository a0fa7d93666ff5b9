// SPDX-License-Identifier: Apache-2.0
// roll_window_ on the CPU: tile by tile, transition after transition.
#include <algorithm>

#include "cpu/kernels.h"
#include "free/roll.h"

namespace free_dit::cpu {
namespace {

// Elements of a state that are rolled through the whole window before the next ones are. The seven
// rows of a transition stay in the first-level cache, so a state is read back from there and not
// from memory. Kept in registers, a few vectors at a time, it would make every row of the window a
// stream of its own, more than a prefetcher follows: half the speed beyond the second-level cache.
constexpr std::int64_t kTile = 1024;

FREE_SIMD_CLONES void follow_row(const float* intercept, float slope, const float* state,
                                 float clip, std::int64_t count, float* guess) {
#pragma omp simd
  for (std::int64_t i = 0; i < count; ++i) {
    guess[i] = guess_of(Said::kIntercept, intercept[i], slope, state[i], 0.0f, 0.0f, {}, clip);
  }
}

FREE_SIMD_CLONES void change_row(const float* change, const float* last, float clip,
                                 std::int64_t count, float* guess) {
#pragma omp simd
  for (std::int64_t i = 0; i < count; ++i) {
    guess[i] = guess_of(Said::kChange, change[i], 0.0f, 0.0f, last[i], 0.0f, {}, clip);
  }
}

FREE_SIMD_CLONES void told_row(Coefficients c, const float* prediction, const float* asked,
                               float clip, std::int64_t count, float* guess) {
#pragma omp simd
  for (std::int64_t i = 0; i < count; ++i) {
    guess[i] = guess_of(Said::kPrediction, prediction[i], 0.0f, 0.0f, 0.0f, asked[i], c, clip);
  }
}

FREE_SIMD_CLONES void given_row(const float* given, float clip, std::int64_t count, float* guess) {
#pragma omp simd
  for (std::int64_t i = 0; i < count; ++i) {
    guess[i] = guess_of(Said::kGuess, given[i], 0.0f, 0.0f, 0.0f, 0.0f, {}, clip);
  }
}

FREE_SIMD_CLONES void roll_row(Coefficients c, const float* state, const float* guess,
                               const float* last, const float* noise, std::int64_t count,
                               float* mean, float* next) {
#pragma omp simd
  for (std::int64_t i = 0; i < count; ++i) {
    const Rolled rolled = roll(c, state[i], guess[i], last[i], noise[i]);
    mean[i] = rolled.mean;
    next[i] = rolled.state;
  }
}

void roll_tile(const Roll& r, std::int64_t b, std::int64_t tile) {
  const std::int64_t count = std::min(kTile, r.size - tile);
  const std::int64_t drafts = r.width - 1;
  const std::int64_t settled = r.change == nullptr ? drafts : r.settled[b];
  // States as the drafter was asked about them, of which the later ones are rolled over.
  const float* asked = r.states + (b * r.width + r.first) * r.size + tile;
  float kept[2][kTile];
  for (std::int64_t j = r.first; j < r.end; ++j) {
    const std::int64_t entry = b * r.width + j;
    const std::int64_t step = b * drafts + j;
    const std::int64_t here = entry * r.size + tile;
    const std::int64_t next = here + r.size;
    const std::int64_t given = step * r.size + tile;
    const float* state = r.states + here;
    const float* last = r.guesses + here;
    float* guess = r.guesses + next;
    const Coefficients c = coefficients_at(r.coefficients, r.batch * r.width, entry);
    switch (said_of(j, settled, r.says)) {
      case Said::kIntercept:
        follow_row(r.intercept + given, r.slope[step], state, r.clip, count, guess);
        break;
      case Said::kChange:
        change_row(r.change + given, last, r.clip, count, guess);
        break;
      case Said::kPrediction:
        told_row(c, r.change + given, asked, r.clip, count, guess);
        break;
      case Said::kGuess:
        given_row(r.change + given, r.clip, count, guess);
        break;
    }
    if (r.says == Said::kPrediction && j + 1 < r.end) {
      asked = kept[j % 2];
      std::copy_n(r.states + next, count, kept[j % 2]);
    }
    roll_row(c, state, guess, last, r.noise + given, count, r.means + given, r.states + next);
  }
}

}  // namespace

void roll_window(const Roll& r) {
  const std::int64_t tiles = (r.size + kTile - 1) / kTile;
#pragma omp parallel for collapse(2) if (r.batch * (r.end - r.first) * r.size >= kParallelElements)
  for (std::int64_t b = 0; b < r.batch; ++b) {
    for (std::int64_t tile = 0; tile < tiles; ++tile) {
      roll_tile(r, b, tile * kTile);
    }
  }
}

}  // namespace free_dit::cpu
