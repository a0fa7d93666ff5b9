// SPDX-License-Identifier: Apache-2.0
// roll_window on a GPU: a thread takes four elements of a sample through the whole window, the
// state in registers; the next transition's rows are under way while this one's are computed.
#include "free/roll.h"

#include <cuda_runtime.h>

#include "cuda/kernels.h"
#include "cuda/launch.h"
#include "cuda/quad.h"

namespace free_dit::cuda {
namespace {

constexpr int kThreads = 64;  // small blocks: one sample's elements reach many processors

template <bool kWide>
__global__ void __launch_bounds__(kThreads) roll_quads(Roll r, std::int64_t quads) {
  Place place;
  if (!find_place(r.batch, quads, &place)) {
    return;
  }
  const std::int64_t at = place.at;
  const std::int64_t first_step = place.row * r.steps;
  const float* guesses = r.guess + first_step * r.size;
  const float* noises = r.noise + first_step * r.size;
  float* means = r.means + first_step * r.size;
  float* states = r.states + place.row * (r.steps + 1) * r.size;

  Quad<float> state = load<kWide>(r.x + place.row * r.size, at, r.size);
  Quad<float> guess{}, noise{};
  if (r.steps > 0) {
    guess = load<kWide>(guesses, at, r.size);
    noise = load<kWide>(noises, at, r.size);
  }
  store<kWide>(states, at, r.size, state);
  for (std::int64_t j = 0; j < r.steps; ++j) {
    const Coefficients c{r.a[first_step + j], r.b[first_step + j], r.sigma[first_step + j]};
    Quad<float> next_guess{}, next_noise{};
    if (j + 1 < r.steps) {
      next_guess = load<kWide>(guesses + (j + 1) * r.size, at, r.size);
      next_noise = load<kWide>(noises + (j + 1) * r.size, at, r.size);
    }
    Quad<float> mean;
#pragma unroll
    for (int i = 0; i < kQuad; ++i) {
      const Rolled rolled = roll(c, state.v[i], guess.v[i], noise.v[i]);
      mean.v[i] = rolled.mean;
      state.v[i] = rolled.state;
    }
    store<kWide>(means + j * r.size, at, r.size, mean);
    store<kWide>(states + (j + 1) * r.size, at, r.size, state);
    guess = next_guess;
    noise = next_noise;
  }
}

}  // namespace

void roll_window(const Roll& r, const Queue& queue) {
  const OnDevice here(queue);
  const std::int64_t quads = ceil_div(r.size, kQuad);
  const bool wide = whole_quads(r.size, r.x, r.guess, r.noise, r.states, r.means);
  launch("roll_window", wide ? roll_quads<true> : roll_quads<false>,
         ceil_div(r.batch * quads, kThreads), kThreads, queue, r, quads);
}

}  // namespace free_dit::cuda
