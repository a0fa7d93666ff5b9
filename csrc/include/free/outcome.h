// SPDX-License-Identifier: Apache-2.0
// What a decision says, and what it is made of.
//
// A verifier is a function
//
//   decide_...(drafts, transitions, sigmas, uniforms, log_ratios) -> Outcome
//
// of scalars only. It gets them through `transitions`, so that the caller may reduce a transition
// when it is asked for or hand out sums that are there already:
//
//   transitions.examine(j)                 -> Transition, j = 0 .. drafts - 1, called in order
//   transitions.fresh_noise_dot_shift(j)   -> <noise, m_hat_j - m_j>, noise the fresh one; asked of
//                                             the repaired transition alone
//
// The other arguments: drafts = length - 1 of this sample; sigmas [drafts + 1]; uniforms [drafts]
// in [0, 1); log_ratios [drafts], written for every examined transition and only there.
//
// The Outcome says all that the write phase needs. With j = accepted,
//
//   state = m_j + sigma_j * noise + shift_factor * (m_hat_j - m_j),
//
// where `noise` is the draft's own z_j or the fresh one. A verifier whose repair starts from
// m_hat_j adds 1 to the factor: m_hat_j = m_j + (m_hat_j - m_j).
#pragma once

#include "free/platform.h"

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

/// A transition sampled from the target itself: the one after the last draft has no draft.
FREE_HOST_DEVICE Outcome sample_target(int transition, float sigma) {
  return {transition, sigma > 0.0f ? Noise::kFresh : Noise::kNone, 0.0};
}

}  // namespace free_dit
