// SPDX-License-Identifier: Apache-2.0
// The decide phase: which drafts of a sample's window stand, and what the next state is.
//
// A verifier sees scalars only. It gets the transitions through `examine(j)`, so that the caller
// may reduce a transition when it is asked for (CPU: rows behind a rejection are never read) or
// hand out sums that are there already (CUDA). It answers with an Outcome, which says all that the
// write phase needs: with j = accepted, e_j = (m_hat_j - m_j) / |m_hat_j - m_j|,
//
//   state = m_j + sigma_j * (noise + coefficient * e_j),
//
// where `noise` is the draft's own z_j or the fresh one. The coefficient is handed over as
// shift_factor = coefficient / |Delta_j|, the factor of m_hat_j - m_j. A verifier whose repair
// starts from m_hat_j adds 1 to it: m_hat_j = m_j + (m_hat_j - m_j).
#pragma once

#include <cmath>

#include "free/platform.h"
#include "free/transition.h"

namespace free_dit {

enum class Noise {
  kNone,   ///< the transition is deterministic: the state is the mean
  kDraft,  ///< z_j = (x_hat_j - m_hat_j) / sigma_j
  kFresh,  ///< the noise drawn for a transition from the target itself
};

struct Outcome {
  int accepted;         ///< drafts that stand, 0..drafts; accepted + 1 transitions are made
  Noise noise;          ///< what the state of transition `accepted` is made of
  double shift_factor;  ///< times (m_hat - m) of that transition; 0: no draft mean is read
};

/// The transition after the last draft has no draft: it is sampled from the target.
FREE_HOST_DEVICE Outcome sample_target(int transition, float sigma) {
  return {transition, sigma > 0.0f ? Noise::kFresh : Noise::kNone, 0.0};
}

/// Whether reflection keeps a draft: log1p(-u) <= log ratio, u in [0, 1). u = 0 keeps every draft
/// whose ratio is a number; a NaN is never kept.
FREE_HOST_DEVICE bool reflection_accepts(const Transition& t, double ratio, float u) {
  return is_finite(t) && (same_mean(t) || std::log1p(-static_cast<double>(u)) <= ratio);
}

/// Reflection maximal coupling (supplement B, eq. 13-14), one transition after the other up to the
/// first rejection, which is repaired by the mirror image m + sigma (z - 2 <z, e> e).
///
/// @param drafts     number of drafted transitions of this sample, length - 1
/// @param examine    examine(j) -> Transition, j = 0 .. drafts - 1, called in order
/// @param sigmas     [drafts + 1]
/// @param uniforms   [drafts], in [0, 1)
/// @param log_ratios [drafts], written for every examined transition and only there
template <class Examine>
FREE_HOST_DEVICE Outcome decide_reflection(int drafts, Examine&& examine, const float* sigmas,
                                           const float* uniforms, float* log_ratios) {
  for (int j = 0; j < drafts; ++j) {
    const Transition t = examine(j);
    const double ratio = log_ratio(t);
    log_ratios[j] = static_cast<float>(ratio);
    if (reflection_accepts(t, ratio, uniforms[j])) {
      continue;
    }
    if (t.sigma == 0.0f) {
      return {j, Noise::kNone, 0.0};
    }
    return {j, Noise::kDraft, -2.0 * t.noise_dot_shift / t.shift_sq};
  }
  return sample_target(drafts, sigmas[drafts]);
}

}  // namespace free_dit
