// SPDX-License-Identifier: Apache-2.0
// Reflection maximal coupling: the best that can be had from one transition at a time.
#pragma once

#include <cmath>

#include "free/outcome.h"
#include "free/platform.h"
#include "free/transition.h"

namespace free_dit {

/// Whether reflection keeps a draft: log1p(-u) <= log ratio, u in [0, 1). u = 0 keeps what the
/// target prefers, and nothing else; a NaN is never kept.
FREE_HOST_DEVICE bool reflection_accepts(const Transition& t, double ratio, float u) {
  return is_finite(t) && (same_mean(t) || std::log1p(-static_cast<double>(u)) <= ratio);
}

/// Supplement B, eq. 13-14: one transition after the other up to the first rejection, which is
/// repaired by the mirror image m + sigma (z - 2 <z, e> e), e = (m_hat - m) / |m_hat - m|. Rows
/// behind it are not examined. Arguments: see free/outcome.h; accepts(j, transition, log ratio)
/// says whether a draft stands.
template <class Transitions, class Accepts>
FREE_HOST_DEVICE Outcome decide_one_by_one(int drafts, const Transitions& transitions,
                                           const float* sigmas, float* log_ratios,
                                           const Accepts& accepts) {
  for (int j = 0; j < drafts; ++j) {
    const Transition t = transitions.examine(j);
    const double ratio = log_ratio(t);
    log_ratios[j] = static_cast<float>(ratio);
    if (accepts(j, t, ratio)) {
      continue;
    }
    if (t.sigma == 0.0f) {
      return {j, Noise::kNone, 0.0};
    }
    return {j, Noise::kDraft, -2.0 * t.noise_dot_shift / t.shift_sq};
  }
  return sample_target(drafts, sigmas[drafts]);
}

template <class Transitions>
FREE_HOST_DEVICE Outcome decide_reflection(int drafts, const Transitions& transitions,
                                           const float* sigmas, const float* uniforms,
                                           float* log_ratios) {
  struct Test {
    const float* uniforms;

    FREE_HOST_DEVICE bool operator()(int j, const Transition& t, double ratio) const {
      return reflection_accepts(t, ratio, uniforms[j]);
    }
  };
  return decide_one_by_one(drafts, transitions, sigmas, log_ratios, Test{uniforms});
}

}  // namespace free_dit
