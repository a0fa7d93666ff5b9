// SPDX-License-Identifier: Apache-2.0
// first_guesses on a GPU: a thread four elements of an entry of a sample's window; the entry's
// first thread writes its scalars.
#include <cuda_runtime.h>

#include "cuda/kernels.h"
#include "cuda/launch.h"
#include "cuda/quad.h"
#include "free/guess.h"
#include "free/roll.h"

namespace free_dit::cuda {
namespace {

constexpr int kThreads = 64;  // small blocks: one sample's elements reach many processors

/// Where an entry is in the schedule, and its coefficients.
__device__ __forceinline__ void write_step(const FirstGuesses& g, std::int64_t b, std::int64_t i) {
  const std::int64_t entry = b * g.width + i;
  const std::int64_t step = nearest(g.k[b], i, g.steps);
  g.at[entry] = step;
#pragma unroll
  for (std::int64_t column = 0; column < kCoefficients; ++column) {
    g.coefficients[column * g.batch * g.width + entry] = g.columns[column * g.steps + step];
  }
}

template <bool kWide>
__global__ void __launch_bounds__(kThreads) guess_quads(FirstGuesses g, std::int64_t quads) {
  Place place;
  if (!find_place(g.batch * g.width, quads, &place)) {
    return;
  }
  const std::int64_t at = place.at;
  const std::int64_t b = place.row / g.width;
  const std::int64_t i = place.row - b * g.width;
  const bool writes_scalars = at == 0;
  // A row that is not there is not read.
  const std::int64_t row = nearest(g.row[b * g.stride + i], 0, g.rows) * g.size;
  const Quad<float> said = load<kWide>(g.past_guess + row, at, g.size);
  const Quad<float> x_old = load<kWide>(g.past_x + row, at, g.size);
  if (writes_scalars) {
    write_step(g, b, i);
  }
  if (i == 0) {  // the transition just made
    const std::int64_t made = nearest(g.k[b], -1, g.steps);
    const Coefficients c = coefficients_at(g.columns, g.steps, made);
    Quad<float> mean;
#pragma unroll
    for (int e = 0; e < kQuad; ++e) {
      mean.v[e] = mean_of(c, x_old.v[e], said.v[e], 0.0f);
    }
    const std::int64_t out = b * g.width * g.size;
    store<kWide>(g.states + out, at, g.size, load<kWide>(g.x + b * g.size, at, g.size));
    store<kWide>(g.means + out, at, g.size, mean);
    store<kWide>(g.guesses + out, at, g.size, said);
    if (writes_scalars) {
      g.settled[b] = settled_of(g.known[b], g.source);
    }
    return;
  }
  const std::int64_t j = i - 1;
  const std::int64_t out = b * (g.width - 1) + j;
  const float largest = g.columns[kLargestResponse * g.steps + nearest(g.k[b], j, g.steps)];
  const bool following = follows(j, g.known[b], g.source);
  const float slope = following ? response_of(g.dot[b], g.square[b], largest) : 0.0f;
  Quad<float> intercept;
#pragma unroll
  for (int e = 0; e < kQuad; ++e) {
    intercept.v[e] = intercept_of(said.v[e], slope, x_old.v[e]);
  }
  store<kWide>(g.intercept + out * g.size, at, g.size, intercept);
  if (writes_scalars) {
    g.slope[out] = slope;
  }
}

}  // namespace

void first_guesses(const FirstGuesses& g, const Queue& queue) {
  const OnDevice here(queue);
  const std::int64_t quads = ceil_div(g.size, kQuad);
  const bool wide =
      whole_quads(g.size, g.x, g.past_x, g.past_guess, g.states, g.means, g.guesses, g.intercept);
  launch("first_guesses", wide ? guess_quads<true> : guess_quads<false>,
         ceil_div(g.batch * g.width * quads, kThreads), kThreads, queue, g, quads);
}

}  // namespace free_dit::cuda
