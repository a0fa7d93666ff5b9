// SPDX-License-Identifier: Apache-2.0
// first_guesses on a GPU: a thread takes four elements of a sample through the window, whose first
// thread writes the scalars; rolled, the state and the last guess stay in registers. The next
// transition's rows are under way while this one's are computed.
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

/// What an entry of a window needs of memory: what the teacher's last call says of the transition
/// that leads there, and its noise.
struct Past {
  Quad<float> said;
  Quad<float> x;
  Quad<float> noise;
};

template <bool kWide>
__device__ __forceinline__ Past load_past(const FirstGuesses& g, std::int64_t b, std::int64_t i,
                                          std::int64_t at) {
  // A row that is not there is not read.
  const std::int64_t row = nearest(g.row[b * g.stride + i], 0, g.rows) * g.size;
  Past past{
      load<kWide>(g.past_guess + row, at, g.size), load<kWide>(g.past_x + row, at, g.size), {}};
  if (g.noise != nullptr && i > 0) {
    past.noise = load<kWide>(g.noise + (b * (g.width - 1) + i - 1) * g.size, at, g.size);
  }
  return past;
}

template <bool kWide>
__global__ void __launch_bounds__(kThreads) guess_quads(FirstGuesses g, std::int64_t quads) {
  Place place;
  if (!find_place(g.batch, quads, &place)) {
    return;
  }
  const std::int64_t b = place.row;
  const std::int64_t at = place.at;
  const bool writes_scalars = at == 0;
  const Past made = load_past<kWide>(g, b, 0, at);  // the transition just made
  Quad<float> state = load<kWide>(g.x + b * g.size, at, g.size);
  Quad<float> guess = made.said;
  Quad<float> mean;
  const Coefficients before = coefficients_at(g.columns, g.steps, nearest(g.k[b], -1, g.steps));
#pragma unroll
  for (int e = 0; e < kQuad; ++e) {
    mean.v[e] = own_mean(before, made.x.v[e], guess.v[e]);
  }
  std::int64_t row = b * g.width * g.size;
  store<kWide>(g.states + row, at, g.size, state);
  store<kWide>(g.mean_before + b * g.size, at, g.size, mean);
  store<kWide>(g.guesses + row, at, g.size, guess);
  if (writes_scalars) {
    g.settled[b] = settled_of(g.known[b], g.source);
    write_step(g, b, 0);
  }
  Past next{};
  if (g.width > 1) {
    next = load_past<kWide>(g, b, 1, at);
  }
  for (std::int64_t j = 0; j < g.width - 1; ++j) {
    const Past past = next;
    if (j + 2 < g.width) {
      next = load_past<kWide>(g, b, j + 2, at);
    }
    const std::int64_t draft = b * (g.width - 1) + j;
    const std::int64_t step = nearest(g.k[b], j, g.steps);
    const float largest = g.columns[kLargestResponse * g.steps + step];
    const bool following = follows(j, g.known[b], g.source);
    const float slope = following ? response_of(g.dot[b], g.square[b], largest) : 0.0f;
    Quad<float> intercept;
#pragma unroll
    for (int e = 0; e < kQuad; ++e) {
      intercept.v[e] = intercept_of(past.said.v[e], slope, past.x.v[e]);
    }
    store<kWide>(g.intercept + draft * g.size, at, g.size, intercept);
    if (writes_scalars) {
      g.slope[draft] = slope;
      write_step(g, b, j + 1);
    }
    if (g.noise == nullptr) {
      continue;
    }
    const Coefficients c = coefficients_at(g.columns, g.steps, step);
#pragma unroll
    for (int e = 0; e < kQuad; ++e) {
      const float last = guess.v[e];
      guess.v[e] =
          guess_of(Said::kIntercept, intercept.v[e], slope, state.v[e], last, 0.0f, c, g.clip);
      const Rolled rolled = roll(c, state.v[e], guess.v[e], last, past.noise.v[e]);
      mean.v[e] = rolled.mean;
      state.v[e] = rolled.state;
    }
    row += g.size;
    store<kWide>(g.states + row, at, g.size, state);
    store<kWide>(g.means + draft * g.size, at, g.size, mean);
    store<kWide>(g.guesses + row, at, g.size, guess);
  }
}

}  // namespace

void first_guesses(const FirstGuesses& g, const Queue& queue) {
  const OnDevice here(queue);
  const std::int64_t quads = ceil_div(g.size, kQuad);
  const bool wide = whole_quads(g.size, g.x, g.past_x, g.past_guess, g.noise, g.states, g.means,
                                g.guesses, g.mean_before, g.intercept);
  launch("first_guesses", wide ? guess_quads<true> : guess_quads<false>,
         ceil_div(g.batch * quads, kThreads), kThreads, queue, g, quads);
}

}  // namespace free_dit::cuda
