// SPDX-License-Identifier: Apache-2.0
// roll_window_ on a GPU: a thread takes four elements of a sample through the span, the state and
// the last guess in registers; the next transition's rows are under way while this one's are
// computed.
#include "free/roll.h"

#include <cuda_runtime.h>

#include "cuda/kernels.h"
#include "cuda/launch.h"
#include "cuda/quad.h"

namespace free_dit::cuda {
namespace {

constexpr int kThreads = 64;  // small blocks: one sample's elements reach many processors

/// What a transition needs of memory.
struct Step {
  Said what;
  float slope;
  Coefficients c;
  Quad<float> said;
  Quad<float> asked;
  Quad<float> noise;
};

template <bool kWide>
__device__ __forceinline__ Step load_step(const Roll& r, std::int64_t b, std::int64_t j,
                                          std::int64_t settled, std::int64_t at) {
  const std::int64_t step = b * (r.width - 1) + j;
  const std::int64_t entry = b * r.width + j;
  const Said what = said_of(j, settled, r.says);
  const float* said = what == Said::kIntercept ? r.intercept : r.change;
  // The state as the drafter was asked about it: it is rolled over after this.
  Quad<float> asked{};
  if (what == Said::kPrediction) {
    asked = load<kWide>(r.states + entry * r.size, at, r.size);
  }
  return {what,
          r.slope[step],
          coefficients_at(r.coefficients, r.batch * r.width, entry),
          load<kWide>(said + step * r.size, at, r.size),
          asked,
          load<kWide>(r.noise + step * r.size, at, r.size)};
}

template <bool kWide>
__global__ void __launch_bounds__(kThreads) roll_quads(Roll r, std::int64_t quads) {
  Place place;
  if (!find_place(r.batch, quads, &place)) {
    return;
  }
  const std::int64_t b = place.row;
  const std::int64_t at = place.at;
  const std::int64_t settled = r.change == nullptr ? r.width - 1 : r.settled[b];
  std::int64_t row = (b * r.width + r.first) * r.size;
  std::int64_t made = (b * (r.width - 1) + r.first) * r.size;
  Quad<float> state = load<kWide>(r.states + row, at, r.size);
  Quad<float> guess = load<kWide>(r.guesses + row, at, r.size);
  Step next = load_step<kWide>(r, b, r.first, settled, at);
  for (std::int64_t j = r.first; j < r.end; ++j) {
    const Step step = next;
    if (j + 1 < r.end) {
      next = load_step<kWide>(r, b, j + 1, settled, at);
    }
    Quad<float> mean;
#pragma unroll
    for (int i = 0; i < kQuad; ++i) {
      const float last = guess.v[i];
      guess.v[i] = guess_of(step.what, step.said.v[i], step.slope, state.v[i], last,
                            step.asked.v[i], step.c, r.clip);
      const Rolled rolled = roll(step.c, state.v[i], guess.v[i], last, step.noise.v[i]);
      mean.v[i] = rolled.mean;
      state.v[i] = rolled.state;
    }
    row += r.size;
    store<kWide>(r.states + row, at, r.size, state);
    store<kWide>(r.means + made, at, r.size, mean);
    store<kWide>(r.guesses + row, at, r.size, guess);
    made += r.size;
  }
}

}  // namespace

void roll_window(const Roll& r, const Queue& queue) {
  const OnDevice here(queue);
  const std::int64_t quads = r.first < r.end ? ceil_div(r.size, kQuad) : 0;
  const bool wide =
      whole_quads(r.size, r.states, r.means, r.guesses, r.noise, r.intercept, r.change);
  launch("roll_window_", wide ? roll_quads<true> : roll_quads<false>,
         ceil_div(r.batch * quads, kThreads), kThreads, queue, r, quads);
}

}  // namespace free_dit::cuda
