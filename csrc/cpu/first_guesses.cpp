// SPDX-License-Identifier: Apache-2.0
// first_guesses on the CPU: entry by entry of each sample's window, which is then rolled.
#include <algorithm>

#include "cpu/kernels.h"
#include "free/guess.h"
#include "free/roll.h"

namespace free_dit::cpu {
namespace {

FREE_SIMD_CLONES void mean_row(Coefficients c, const float* state, const float* guess,
                               std::int64_t count, float* mean) {
#pragma omp simd
  for (std::int64_t i = 0; i < count; ++i) {
    mean[i] = own_mean(c, state[i], guess[i]);
  }
}

FREE_SIMD_CLONES void intercept_row(float slope, const float* said, const float* x_old,
                                    std::int64_t count, float* intercept) {
#pragma omp simd
  for (std::int64_t i = 0; i < count; ++i) {
    intercept[i] = intercept_of(said[i], slope, x_old[i]);
  }
}

/// The transition just made.
void write_made(const FirstGuesses& g, std::int64_t b) {
  const std::int64_t row = g.row[b * g.stride] * g.size;
  const std::int64_t made = nearest(g.k[b], -1, g.steps);
  const std::int64_t out = b * g.width * g.size;
  std::copy_n(g.x + b * g.size, g.size, g.states + out);
  std::copy_n(g.past_guess + row, g.size, g.guesses + out);
  mean_row(coefficients_at(g.columns, g.steps, made), g.past_x + row, g.past_guess + row, g.size,
           g.mean_before + b * g.size);
  g.settled[b] = settled_of(g.known[b], g.source);
}

/// Transition j of the window, of which entry j + 1 of `row` tells.
void write_guess(const FirstGuesses& g, std::int64_t b, std::int64_t j) {
  const std::int64_t row = g.row[b * g.stride + j + 1] * g.size;
  const std::int64_t out = b * (g.width - 1) + j;
  const float largest = g.columns[kLargestResponse * g.steps + nearest(g.k[b], j, g.steps)];
  const bool following = follows(j, g.known[b], g.source);
  g.slope[out] = following ? response_of(g.dot[b], g.square[b], largest) : 0.0f;
  intercept_row(g.slope[out], g.past_guess + row, g.past_x + row, g.size,
                g.intercept + out * g.size);
}

void write_entry(const FirstGuesses& g, std::int64_t b, std::int64_t i) {
  const std::int64_t entry = b * g.width + i;
  const std::int64_t step = nearest(g.k[b], i, g.steps);
  g.at[entry] = step;
  for (std::int64_t column = 0; column < kCoefficients; ++column) {
    g.coefficients[column * g.batch * g.width + entry] = g.columns[column * g.steps + step];
  }
  if (i == 0) {
    write_made(g, b);
  } else {
    write_guess(g, b, i - 1);
  }
}

}  // namespace

void first_guesses(const FirstGuesses& g) {
#pragma omp parallel for collapse(2) if (g.batch * g.width * g.size >= kParallelElements)
  for (std::int64_t b = 0; b < g.batch; ++b) {
    for (std::int64_t i = 0; i < g.width; ++i) {
      write_entry(g, b, i);
    }
  }
  if (g.noise != nullptr) {
    roll_window({g.batch, g.width, g.size, 0, g.width - 1, Said::kIntercept, g.states, g.means,
                 g.guesses, g.noise, g.intercept, g.slope, nullptr, nullptr, g.coefficients,
                 g.clip});
  }
}

}  // namespace free_dit::cpu
