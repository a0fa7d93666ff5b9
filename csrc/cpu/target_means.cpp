// SPDX-License-Identifier: Apache-2.0
// target_means on the CPU: row by row.
#include <algorithm>

#include "cpu/kernels.h"
#include "free/guidance.h"
#include "free/roll.h"

namespace free_dit::cpu {
namespace {

FREE_SIMD_CLONES void widen_row(const Half* eps, std::int64_t count, float* out) {
#pragma omp simd
  for (std::int64_t i = 0; i < count; ++i) {
    out[i] = widen(eps[i]);
  }
}

FREE_SIMD_CLONES void widen_row(const Bfloat* eps, std::int64_t count, float* out) {
#pragma omp simd
  for (std::int64_t i = 0; i < count; ++i) {
    out[i] = widen(eps[i]);
  }
}

void widen_row(const float* eps, std::int64_t count, float* out) { std::copy_n(eps, count, out); }

FREE_FMA_CLONES void guide_row(const float* unconditional, float scale, std::int64_t count,
                               float* eps) {
#pragma omp simd
  for (std::int64_t i = 0; i < count; ++i) {
    eps[i] = guide(eps[i], unconditional[i], scale);
  }
}

FREE_SIMD_CLONES void mean_row(Coefficients c, const float* x, const float* eps, float clip,
                               std::int64_t count, float* guess, float* mean) {
#pragma omp simd
  for (std::int64_t i = 0; i < count; ++i) {
    guess[i] = told(c, x[i], eps[i], clip);
    mean[i] = own_mean(c, x[i], guess[i]);
  }
}

template <class T>
void write_row(const TargetMeans& m, std::int64_t r) {
  const std::int64_t row = r * m.size;
  const T* said = static_cast<const T*>(m.eps) + m.answers * row;
  float* eps = m.combined + row;
  widen_row(said, m.size, eps);
  const std::int64_t k = m.k[r];
  if (m.guided > 0) {
    float* unconditional = m.means + row;  // until the means are written
    widen_row(said + m.size, m.guided, unconditional);
    guide_row(unconditional, scale_at(m.scale, m.columns[kGuided * m.steps + k]), m.guided, eps);
  }
  const Coefficients c = coefficients_at(m.columns, m.steps, k);
  mean_row(c, m.x + row, eps, m.clip, m.size, m.guess + row, m.means + row);
  m.sigma[r] = c.sigma;
}

template <class T>
void write_rows(const TargetMeans& m) {
#pragma omp parallel for if (m.rows * m.size >= kParallelElements)
  for (std::int64_t r = 0; r < m.rows; ++r) {
    write_row<T>(m, r);
  }
}

}  // namespace

void target_means(const TargetMeans& m) {
  switch (m.type) {
    case Float::kFloat32:
      return write_rows<float>(m);
    case Float::kFloat16:
      return write_rows<Half>(m);
    case Float::kBfloat16:
      return write_rows<Bfloat>(m);
  }
}

}  // namespace free_dit::cpu
