// SPDX-License-Identifier: Apache-2.0
// network_rows on the CPU: row by row.
#include <algorithm>

#include "cpu/kernels.h"

namespace free_dit::cpu {
namespace {

FREE_SIMD_CLONES void scale_row(const float* state, float scale, std::int64_t count, float* x) {
#pragma omp simd
  for (std::int64_t i = 0; i < count; ++i) {
    x[i] = scale * state[i];
  }
}

void write_row(const NetworkRows& n, std::int64_t r) {
  const RowPlace place = place_of(n, r);
  const std::int64_t k = n.at[place.b * n.width + place.i];
  n.k[r] = k;
  const std::int64_t step = nearest(k, 0, n.steps);
  const float* state = n.states + (place.b * n.width + place.i) * n.size;
  for (std::int64_t out = n.each * r; out < n.each * (r + 1); ++out) {
    if (n.scale == nullptr) {
      std::copy_n(state, n.size, n.x + out * n.size);
    } else {
      scale_row(state, n.scale[step], n.size, n.x + out * n.size);
    }
    n.t[out] = n.timesteps[step];
    n.label[out] = out == n.each * r ? n.y[place.b] : n.null_label;
  }
  if (n.means != nullptr) {
    std::copy_n(mean_at(n, place.b, place.i), n.size, n.mean + r * n.size);
  }
}

}  // namespace

void network_rows(const NetworkRows& n) {
#pragma omp parallel for if (n.rows * n.size >= kParallelElements)
  for (std::int64_t r = 0; r < n.rows; ++r) {
    write_row(n, r);
  }
}

}  // namespace free_dit::cpu
