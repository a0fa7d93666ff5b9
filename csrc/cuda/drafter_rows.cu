// SPDX-License-Identifier: Apache-2.0
// drafter_rows on a GPU: a thread four elements of a row; the row's first thread writes its
// scalars.
#include <cuda_runtime.h>

#include "cuda/kernels.h"
#include "cuda/launch.h"
#include "cuda/quad.h"

namespace free_dit::cuda {
namespace {

constexpr int kThreads = 128;

template <bool kWide>
__global__ void __launch_bounds__(kThreads) innovation_quads(DrafterRows d, std::int64_t quads) {
  Place place;
  if (!find_place(d.rows, quads, &place)) {
    return;
  }
  const std::int64_t r = place.row;
  const std::int64_t k = d.k[r];
  const std::int64_t step = nearest(k, 0, d.steps);
  const float sigma = d.sigma[nearest(k, -1, d.steps)];
  Quad<float> state = load<kWide>(d.x + r * d.size, place.at, d.size);
  const Quad<float> mean = load<kWide>(d.mean + r * d.size, place.at, d.size);
  Quad<float> innovation;
#pragma unroll
  for (int i = 0; i < kQuad; ++i) {
    innovation.v[i] = innovation_of(state.v[i], mean.v[i], sigma);
    state.v[i] = d.scale == nullptr ? state.v[i] : d.scale[step] * state.v[i];
  }
  for (std::int64_t out = d.each * r; out < d.each * (r + 1); ++out) {
    store<kWide>(d.states + out * d.size, place.at, d.size, state);
    store<kWide>(d.innovation + out * d.size, place.at, d.size, innovation);
    if (place.at == 0) {
      d.t[out] = d.timesteps[step];
      d.label[out] = out == d.each * r ? d.y[r] : d.null_label;
    }
  }
}

}  // namespace

void drafter_rows(const DrafterRows& d, const Queue& queue) {
  const OnDevice here(queue);
  // The first thread of a row writes its scalars, also of states without elements.
  const std::int64_t quads = d.size < 1 ? 1 : ceil_div(d.size, kQuad);
  const bool wide = whole_quads(d.size, d.x, d.mean, d.states, d.innovation);
  launch("drafter_rows", wide ? innovation_quads<true> : innovation_quads<false>,
         ceil_div(d.rows * quads, kThreads), kThreads, queue, d, quads);
}

}  // namespace free_dit::cuda
