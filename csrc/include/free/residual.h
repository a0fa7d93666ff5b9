// SPDX-License-Identifier: Apache-2.0
// What the target has left of a transition when its draft has had its share.
//
// Along e, the direction from the draft's mean to the target's, the draft is N(0, 1) and the target
// N(delta, 1); across it they are equal. A block that has a share lambda of the target left over
// leaves the residual
//
//   (lambda phi(s - delta) - phi(s))_+ ,   positive for s > c = delta / 2 - ln(lambda) / delta.
//
// Its mass is a difference of tails that may agree in all their digits. With the Mills ratio
// M(x) = Phibar(x) / phi(x), and lambda phi(c - delta) = phi(c), it is a sum of positive terms:
//
//   mass beyond s = phi(s) (expm1(delta (s - c)) M(s - delta) + M(s - delta) - M(s)).
#pragma once

#include <cmath>

#include "free/platform.h"

namespace free_dit {

/// Below this delta the tails are not subtracted from each other. Above, their difference has at
/// least eight digits wherever it has not underflowed.
constexpr double kCloseMeans = 1e-3;

/// Upper tail of the standard normal law.
FREE_HOST_DEVICE double normal_tail(double x) {
  return 0.5 * std::erfc(0.70710678118654752440 * x);
}

FREE_HOST_DEVICE double normal_density(double x) {
  return 0.39894228040143267794 * std::exp(-0.5 * x * x);
}

/// M(x) and -M'(x) = 1 - x M(x), for x > -1.
struct Mills {
  double ratio, descent;
};

FREE_HOST_DEVICE Mills mills(double x) {
  if (x > 26.0) {  // tail and density underflow; an asymptotic series
    const double r = 1.0 / (x * x);
    const double descent = r * (1.0 - r * (3.0 - r * (15.0 - r * 105.0)));
    return {(1.0 - descent) / x, descent};
  }
  const double ratio = normal_tail(x) / normal_density(x);
  return {ratio, 1.0 - x * ratio};
}

/// (lambda phi(s - delta) - phi(s))_+ of one transition, delta > 0.
struct Residual {
  double log_share;  ///< ln lambda <= 0; -infinity where nothing is left
  double delta;      ///< > 0
  double start;      ///< c, where the density becomes positive
};

FREE_HOST_DEVICE Residual residual_of(double log_share, double delta) {
  return {log_share, delta, 0.5 * delta - log_share / delta};
}

/// At s >= start.
FREE_HOST_DEVICE double residual_density(const Residual& r, double s) {
  return -std::exp(r.log_share) * normal_density(s - r.delta) *
         std::expm1(-r.delta * (s - r.start));
}

/// Mass beyond s >= start. 0 where it underflows.
FREE_HOST_DEVICE double residual_tail(const Residual& r, double s) {
  if (!(s < 38.0 + r.delta)) {  // underflow, or nothing is left at all
    return 0.0;
  }
  if (r.delta >= kCloseMeans) {
    const double rest = std::exp(r.log_share) * normal_tail(s - r.delta) - normal_tail(s);
    return rest > 0.0 ? rest : 0.0;
  }
  // The mean of -M' between s - delta and s is its value in the middle, to 1e-7.
  return normal_density(s) * (std::expm1(r.delta * (s - r.start)) * mills(s - r.delta).ratio +
                              r.delta * mills(s - 0.5 * r.delta).descent);
}

FREE_HOST_DEVICE double residual_mass(const Residual& r) { return residual_tail(r, r.start); }

/// The s beyond which a share u in (0, 1) of the residual's mass lies.
///
/// The tail is log-concave: Newton's iteration on its logarithm does not leave the far side of the
/// solution once it is there. Bisection helps where the slope vanishes, at the start.
FREE_HOST_DEVICE double residual_quantile(const Residual& r, double u) {
  const double goal = u * residual_mass(r);
  double low = r.start;
  double high = (r.start > r.delta ? r.start : r.delta) + 12.0;
  double s = 0.5 * (low + high);
  for (int iteration = 0; iteration < 64; ++iteration) {
    const double tail = residual_tail(r, s);
    (tail > goal ? low : high) = s;
    double next = s + tail * std::log(tail / goal) / residual_density(r, s);
    if (!(next > low && next < high)) {  // a NaN, too: nothing is left at s
      next = 0.5 * (low + high);
    }
    const double step = next - s;
    s = next;
    if (std::fabs(step) <= 1e-10) {
      break;
    }
  }
  return s;
}

}  // namespace free_dit
