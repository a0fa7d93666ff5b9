// SPDX-License-Identifier: Apache-2.0
// drafter_rows on the CPU: row by row.
#include <algorithm>

#include "cpu/kernels.h"

namespace free_dit::cpu {
namespace {

FREE_SIMD_CLONES void scale_row(const float* x, float scale, std::int64_t count, float* state) {
#pragma omp simd
  for (std::int64_t i = 0; i < count; ++i) {
    state[i] = scale * x[i];
  }
}

FREE_SIMD_CLONES void innovation_row(const float* x, const float* mean, float sigma,
                                     std::int64_t count, float* innovation) {
#pragma omp simd
  for (std::int64_t i = 0; i < count; ++i) {
    innovation[i] = innovation_of(x[i], mean[i], sigma);
  }
}

void write_row(const DrafterRows& d, std::int64_t r) {
  const std::int64_t k = d.k[r];
  const float* x = d.x + r * d.size;
  const std::int64_t first = d.each * r;
  float* states = d.states + first * d.size;
  float* innovation = d.innovation + first * d.size;
  if (d.scale == nullptr) {
    std::copy_n(x, d.size, states);
  } else {
    scale_row(x, d.scale[k], d.size, states);
  }
  innovation_row(x, d.mean + r * d.size, d.sigma[nearest(k, -1, d.steps)], d.size, innovation);
  d.t[first] = d.timesteps[k];
  d.label[first] = d.y[r];
  if (d.each == 2) {
    std::copy_n(states, d.size, states + d.size);
    std::copy_n(innovation, d.size, innovation + d.size);
    d.t[first + 1] = d.t[first];
    d.label[first + 1] = d.null_label;
  }
}

}  // namespace

void drafter_rows(const DrafterRows& d) {
#pragma omp parallel for if (d.rows * d.size >= kParallelElements)
  for (std::int64_t r = 0; r < d.rows; ++r) {
    write_row(d, r);
  }
}

}  // namespace free_dit::cpu
