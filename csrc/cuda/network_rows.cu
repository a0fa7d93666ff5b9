// SPDX-License-Identifier: Apache-2.0
// network_rows on a GPU: a thread four elements of a row; the row's first thread writes its
// scalars.
#include <cuda_runtime.h>

#include "cuda/kernels.h"
#include "cuda/launch.h"
#include "cuda/quad.h"

namespace free_dit::cuda {
namespace {

constexpr int kThreads = 128;

template <bool kWide>
__global__ void __launch_bounds__(kThreads) copy_quads(NetworkRows n, std::int64_t quads) {
  Place place;
  if (!find_place(n.rows, quads, &place)) {
    return;
  }
  const std::int64_t r = place.row;
  const RowPlace from = place_of(n, r);
  const std::int64_t entry = from.b * n.width + from.i;
  const std::int64_t k = n.at[entry];
  const std::int64_t step = nearest(k, 0, n.steps);
  Quad<float> state = load<kWide>(n.states + entry * n.size, place.at, n.size);
  if (n.scale != nullptr) {
    const float scale = n.scale[step];
#pragma unroll
    for (int i = 0; i < kQuad; ++i) {
      state.v[i] *= scale;
    }
  }
  for (std::int64_t out = n.each * r; out < n.each * (r + 1); ++out) {
    store<kWide>(n.x + out * n.size, place.at, n.size, state);
  }
  if (n.means != nullptr) {
    store<kWide>(n.mean + r * n.size, place.at, n.size,
                 load<kWide>(mean_at(n, from.b, from.i), place.at, n.size));
  }
  if (place.at == 0) {
    n.k[r] = k;
    for (std::int64_t out = n.each * r; out < n.each * (r + 1); ++out) {
      n.t[out] = n.timesteps[step];
      n.label[out] = out == n.each * r ? n.y[from.b] : n.null_label;
    }
  }
}

}  // namespace

void network_rows(const NetworkRows& n, const Queue& queue) {
  const OnDevice here(queue);
  const std::int64_t quads = ceil_div(n.size, kQuad);
  const bool wide = whole_quads(n.size, n.states, n.x, n.means, n.mean_before, n.mean);
  launch("network_rows", wide ? copy_quads<true> : copy_quads<false>,
         ceil_div(n.rows * quads, kThreads), kThreads, queue, n, quads);
}

}  // namespace free_dit::cuda
