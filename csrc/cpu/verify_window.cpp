// SPDX-License-Identifier: Apache-2.0
// verify_window on the CPU: reduce, decide, write, sample by sample.
#include <algorithm>
#include <cstring>
#include <limits>

#include "cpu/kernels.h"
#include "free/outcome.h"
#include "free/relaxation.h"
#include "free/state.h"
#include "free/transition.h"
#include "free/verifier.h"

namespace free_dit::cpu {
namespace {

// Sixteen double accumulators a sum, whatever the machine's vectors are: the order of the
// additions, hence the result, depends neither on the instruction set nor on alignment. The
// differences are taken in float, as the contract has them; their products are exact in double.
using Float8 = float __attribute__((vector_size(32)));
using Double8 = double __attribute__((vector_size(64)));
constexpr std::int64_t kBlock = 16;

struct Sums {
  double noise_dot_shift;
  double shift_sq;
};

FREE_SIMD_CLONES void reduce(const float* x_hat, const float* m_hat, const float* m,
                             std::int64_t size, Sums* sums) {
  Double8 dot[2] = {};
  Double8 sq[2] = {};
  std::int64_t i = 0;
  for (; i + kBlock <= size; i += kBlock) {
    for (int half = 0; half < 2; ++half) {
      Float8 x, h, t;
      std::memcpy(&x, x_hat + i + 8 * half, sizeof x);
      std::memcpy(&h, m_hat + i + 8 * half, sizeof h);
      std::memcpy(&t, m + i + 8 * half, sizeof t);
      const Double8 shift = __builtin_convertvector(h - t, Double8);
      dot[half] += __builtin_convertvector(x - h, Double8) * shift;
      sq[half] += shift * shift;
    }
  }
  const Double8 dots = dot[0] + dot[1];
  const Double8 sqs = sq[0] + sq[1];
  Sums total{0.0, 0.0};
  for (int lane = 0; lane < 8; ++lane) {
    total.noise_dot_shift += dots[lane];
    total.shift_sq += sqs[lane];
  }
  for (; i < size; ++i) {
    const double noise = static_cast<double>(x_hat[i] - m_hat[i]);
    const double shift = static_cast<double>(m_hat[i] - m[i]);
    total.noise_dot_shift += noise * shift;
    total.shift_sq += shift * shift;
  }
  *sums = total;
}

// <x, m_hat - m>, in the same order.
FREE_SIMD_CLONES void project(const float* x, const float* m_hat, const float* m, std::int64_t size,
                              double* sum) {
  Double8 dot[2] = {};
  std::int64_t i = 0;
  for (; i + kBlock <= size; i += kBlock) {
    for (int half = 0; half < 2; ++half) {
      Float8 z, h, t;
      std::memcpy(&z, x + i + 8 * half, sizeof z);
      std::memcpy(&h, m_hat + i + 8 * half, sizeof h);
      std::memcpy(&t, m + i + 8 * half, sizeof t);
      dot[half] += __builtin_convertvector(z, Double8) * __builtin_convertvector(h - t, Double8);
    }
  }
  const Double8 dots = dot[0] + dot[1];
  double total = 0.0;
  for (int lane = 0; lane < 8; ++lane) {
    total += dots[lane];
  }
  for (; i < size; ++i) {
    total += static_cast<double>(x[i]) * static_cast<double>(m_hat[i] - m[i]);
  }
  *sum = total;
}

FREE_SIMD_CLONES void add_scaled(const float* mean, float sigma, const float* noise,
                                 std::int64_t size, float* state) {
#pragma omp simd
  for (std::int64_t i = 0; i < size; ++i) {
    state[i] = fresh_state(mean[i], sigma, noise[i]);
  }
}

FREE_SIMD_CLONES void add_shifted_noise(const float* m, float sigma, const float* noise,
                                        const float* m_hat, float shift_factor, std::int64_t size,
                                        float* state) {
#pragma omp simd
  for (std::int64_t i = 0; i < size; ++i) {
    state[i] = shifted_state(m[i], sigma, noise[i], m_hat[i], shift_factor);
  }
}

FREE_SIMD_CLONES void add_draft_noise(const float* m, const float* x_hat, const float* m_hat,
                                      float shift_factor, std::int64_t size, float* state) {
#pragma omp simd
  for (std::int64_t i = 0; i < size; ++i) {
    state[i] = repaired_state(m[i], x_hat[i], m_hat[i], shift_factor);
  }
}

// The rows of one sample.
struct Sample {
  const float* states;
  const float* draft_means;
  const float* target_means;
  const float* sigma;
  const float* uniforms;
  const float* noise;
  float* state;
  float* log_ratio;
  std::int64_t size;

  const float* x_hat(int j) const { return states + (j + 1) * size; }
  const float* m_hat(int j) const { return draft_means + j * size; }
  const float* m(int j) const { return target_means + j * size; }
};

Sample sample_of(const Window& w, std::int64_t b) {
  const std::int64_t drafts = w.width - 1;
  return {w.states + b * w.width * w.size,
          w.draft_means + b * drafts * w.size,
          w.target_means + b * w.width * w.size,
          w.sigma + b * w.width,
          w.uniforms + b * drafts,
          w.noise + b * w.size,
          w.state + b * w.size,
          w.log_ratio + b * drafts,
          w.size};
}

// Reduces a transition when it is asked for: reflection never reads the rows behind a rejection.
struct Transitions {
  const Sample& sample;

  Transition examine(int j) const {
    Sums sums;
    reduce(sample.x_hat(j), sample.m_hat(j), sample.m(j), sample.size, &sums);
    return {sums.noise_dot_shift, sums.shift_sq, sample.sigma[j]};
  }

  double fresh_noise_dot_shift(int j) const {
    double sum;
    project(sample.noise, sample.m_hat(j), sample.m(j), sample.size, &sum);
    return sum;
  }
};

void write(const Sample& s, const Outcome& outcome) {
  const int j = outcome.accepted;
  const float shift_factor = static_cast<float>(outcome.shift_factor);
  switch (outcome.noise) {
    case Noise::kNone:
      std::copy_n(s.m(j), s.size, s.state);
      break;
    case Noise::kFresh:
      if (shift_factor == 0.0f) {
        add_scaled(s.m(j), s.sigma[j], s.noise, s.size, s.state);
      } else {
        add_shifted_noise(s.m(j), s.sigma[j], s.noise, s.m_hat(j), shift_factor, s.size, s.state);
      }
      break;
    case Noise::kDraft:
      add_draft_noise(s.m(j), s.x_hat(j), s.m_hat(j), shift_factor, s.size, s.state);
      break;
  }
}

// decide(b, sample) -> Outcome.
template <class Decide>
void verify(const Window& w, const Decide& decide) {
#pragma omp parallel for schedule(dynamic) if (w.batch > 1 && w.batch * w.width * w.size >= \
                                                                      kParallelElements)
  for (std::int64_t b = 0; b < w.batch; ++b) {
    const Sample sample = sample_of(w, b);
    std::fill_n(sample.log_ratio, w.width - 1, std::numeric_limits<float>::quiet_NaN());
    const Outcome outcome = decide(b, sample);
    write(sample, outcome);
    w.accepted[b] = outcome.accepted;
    w.advance[b] = outcome.accepted + 1;
  }
}

}  // namespace

void verify_window(const VerifiedWindow& w) {
  verify(w, [&](std::int64_t b, const Sample& s) {
    return decide(w.verifier, w.length[b] - 1, Transitions{s}, s.sigma, s.uniforms, s.log_ratio);
  });
}

void verify_window_relaxed(const RelaxedWindow& w) {
  verify(w, [&](std::int64_t b, const Sample& s) {
    const float* uncertainty =
        w.uncertainty == nullptr ? nullptr : w.uncertainty + b * (w.width - 1);
    Account account{w.spent[b], 0.0};
    const Outcome outcome = decide_relaxed(w, w.length[b] - 1, Transitions{s}, s.sigma, s.uniforms,
                                           uncertainty, &account, s.log_ratio);
    w.bound[b] = account.spent;
    w.log_likelihood[b] = account.log_likelihood;
    return outcome;
  });
}

}  // namespace free_dit::cpu
