// SPDX-License-Identifier: Apache-2.0
// target_means on a GPU: what a teacher said, guided and widened to float, the guess that it is and
// the means that follow from it, in one pass.
#include <cuda_runtime.h>

#include "cuda/kernels.h"
#include "cuda/launch.h"
#include "cuda/quad.h"
#include "free/guess.h"
#include "free/guidance.h"
#include "free/roll.h"

namespace free_dit::cuda {
namespace {

constexpr int kThreads = 128;

template <class T, bool kWide>
__global__ void __launch_bounds__(kThreads) mean_quads(TargetMeans m, std::int64_t quads) {
  Place place;
  if (!find_place(m.rows, quads, &place)) {
    return;
  }
  const std::int64_t at = place.at;
  const std::int64_t row = place.row * m.size;
  const T* said = static_cast<const T*>(m.eps) + m.answers * row;
  Quad<float> eps = load<kWide>(said, at, m.size);
  const Quad<float> x = load<kWide>(m.x + row, at, m.size);
  const std::int64_t k = nearest(m.k[place.row], 0, m.steps);  // beyond the schedule is no memory
  if (at < m.guided) {
    const float scale = scale_at(m.scale, m.columns[kGuided * m.steps + k]);
    const Quad<float> unconditional = load<kWide>(said + m.size, at, m.size);
#pragma unroll
    for (int i = 0; i < kQuad; ++i) {
      if (at + i < m.guided) {
        eps.v[i] = guide(eps.v[i], unconditional.v[i], scale);
      }
    }
  }
  const Coefficients c = coefficients_at(m.columns, m.steps, k);
  Quad<float> guess;
  Quad<float> mean;
#pragma unroll
  for (int i = 0; i < kQuad; ++i) {
    guess.v[i] = told(c, x.v[i], eps.v[i], m.clip);
    mean.v[i] = own_mean(c, x.v[i], guess.v[i]);
  }
  store<kWide>(m.combined + row, at, m.size, eps);
  store<kWide>(m.means + row, at, m.size, mean);
  store<kWide>(m.guess + row, at, m.size, guess);
  if (at == 0) {
    m.sigma[place.row] = c.sigma;
  }
}

template <class T>
void launch_means(const TargetMeans& m, const Queue& queue) {
  const std::int64_t quads = ceil_div(m.size, kQuad);
  const bool wide =
      whole_quads(m.size, m.x, static_cast<const T*>(m.eps), m.combined, m.means, m.guess);
  launch("target_means", wide ? mean_quads<T, true> : mean_quads<T, false>,
         ceil_div(m.rows * quads, kThreads), kThreads, queue, m, quads);
}

}  // namespace

void target_means(const TargetMeans& m, const Queue& queue) {
  const OnDevice here(queue);
  switch (m.type) {
    case Float::kFloat32:
      return launch_means<float>(m, queue);
    case Float::kFloat16:
      return launch_means<Half>(m, queue);
    case Float::kBfloat16:
      return launch_means<Bfloat>(m, queue);
  }
}

}  // namespace free_dit::cuda
