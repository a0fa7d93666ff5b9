// SPDX-License-Identifier: Apache-2.0
// What a verifier knows of one drafted transition.
//
// Draft N(m_hat, sigma^2 I) and target N(m, sigma^2 I) share their variance, so with
// z = (x_hat - m_hat) / sigma and Delta = (m_hat - m) / sigma everything a decision needs is in
// <z, Delta> and |Delta|^2. They are kept unscaled and in double: differences of floats, their
// products and the division by sigma^2 then neither overflow nor underflow, whatever the inputs.
#pragma once

#include <cmath>

#include "free/platform.h"

namespace free_dit {

/// |Delta| at or below which draft and target count as the same distribution.
constexpr double kSameMean = 1e-10;

struct Transition {
  double noise_dot_shift;  ///< <x_hat - m_hat, m_hat - m> = sigma^2 <z, Delta>
  double shift_sq;         ///< |m_hat - m|^2 = sigma^2 |Delta|^2
  float sigma;             ///< >= 0; 0 where the transition is deterministic
};

/// False where x_hat, m_hat or m holds a NaN or an infinity, or a difference of them overflows.
FREE_HOST_DEVICE bool is_finite(const Transition& t) {
  return std::isfinite(t.noise_dot_shift) && std::isfinite(t.shift_sq);
}

/// |Delta| <= 1e-10; for sigma = 0, the means are equal.
FREE_HOST_DEVICE bool same_mean(const Transition& t) {
  const double sigma = t.sigma;
  return t.shift_sq <= kSameMean * kSameMean * sigma * sigma;
}

/// log q(x_hat) / p(x_hat) = -<z, Delta> - |Delta|^2 / 2 (supplement B, eq. 12-13).
/// sigma = 0: 0 for equal means, else -infinity. NaN where an input is not finite.
FREE_HOST_DEVICE double log_ratio(const Transition& t) {
  if (!is_finite(t)) {
    return static_cast<double>(NAN);
  }
  if (t.sigma == 0.0f) {
    return t.shift_sq == 0.0 ? 0.0 : -static_cast<double>(INFINITY);
  }
  const double sigma = t.sigma;
  return -(t.noise_dot_shift + 0.5 * t.shift_sq) / (sigma * sigma);
}

}  // namespace free_dit
