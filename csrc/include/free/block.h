// SPDX-License-Identifier: Apache-2.0
// Block verification (Sun et al., arXiv 2403.10444) for Gaussian transitions: the drafts of a
// window are judged together, and more of them stand than if each is judged by itself.
#pragma once

#include <cmath>

#include "free/outcome.h"
#include "free/platform.h"
#include "free/residual.h"
#include "free/transition.h"

namespace free_dit {

/// |Delta| beyond which draft and target have nothing in common, as for sigma = 0: the residual is
/// the target itself. Less than 1e-300 of it is not, whatever share is left.
constexpr double kDisjoint = 100.0;

/// What block verification needs of a transition.
struct Overlap {
  bool same;      ///< equal laws: nothing is left of the target
  bool disjoint;  ///< all of it is left
  double delta;   ///< |Delta|, where neither
};

FREE_HOST_DEVICE Overlap overlap_of(const Transition& t) {
  if (!is_finite(t)) {
    return {false, true, 0.0};
  }
  if (same_mean(t)) {
    return {true, false, 0.0};
  }
  const double sigma = std::fabs(t.sigma);  // -0.0 is 0, too
  const double delta = std::sqrt(t.shift_sq) / sigma;
  return {false, !(delta <= kDisjoint), delta};
}

/// Probability that a block ends before transition t, given that it does not end later: R / (R + 1
/// - p), R the mass that the target has left there, p = exp(log_p) the share of it that is left
/// over by the drafts before.
FREE_HOST_DEVICE double stop_probability(double log_p, const Overlap& o) {
  if (log_p == 0.0) {
    return 1.0;
  }
  if (o.same) {
    return 0.0;
  }
  const double mass = o.disjoint ? std::exp(log_p) : residual_mass(residual_of(log_p, o.delta));
  return mass / (mass - std::expm1(log_p));
}

/// All drafts are examined: tau, how many of them stand, is the largest for which its uniform, that
/// of draft tau - 1, is below its probability. Transition tau is then drawn from what its draft has
/// left of the target, with fresh noise: the draft's own has had its part in the decision.
/// Arguments: see free/outcome.h.
template <class Transitions>
FREE_HOST_DEVICE Outcome decide_block(int drafts, const Transitions& transitions,
                                      const float* sigmas, const float* uniforms,
                                      float* log_ratios) {
  double log_p = 0.0;  // ln p_j, the running likelihood ratio of the drafts before j, capped at 1
  int tau = 0;
  Transition ending{};
  double log_share = 0.0;
  for (int j = 0; j < drafts; ++j) {
    const Transition t = transitions.examine(j);
    const Overlap overlap = overlap_of(t);
    if (j == 0 || uniforms[j - 1] < stop_probability(log_p, overlap)) {
      tau = j;
      ending = t;
      log_share = log_p;
    }
    const double ratio = log_ratio(t);
    log_ratios[j] = static_cast<float>(ratio);
    if (overlap.disjoint) {
      log_p = -static_cast<double>(INFINITY);
    } else if (!overlap.same) {
      log_p = log_p + ratio < 0.0 ? log_p + ratio : 0.0;
    }
  }
  if (drafts == 0 || uniforms[drafts - 1] < std::exp(log_p)) {
    return sample_target(drafts, sigmas[drafts]);
  }
  const Overlap overlap = overlap_of(ending);
  if (overlap.disjoint) {
    return sample_target(tau, ending.sigma);
  }
  // The draft's law with s along e instead of <noise, e>, which becomes the uniform for s.
  const double along = -transitions.fresh_noise_dot_shift(tau) / std::sqrt(ending.shift_sq);
  const double s = residual_quantile(residual_of(log_share, overlap.delta), normal_tail(-along));
  return {tau, Noise::kFresh, (overlap.delta + along - s) / overlap.delta};
}

}  // namespace free_dit
