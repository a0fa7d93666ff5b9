// SPDX-License-Identifier: Apache-2.0
// The verifiers by name. A new one is a function (free/outcome.h), an entry in each of the two
// lists and in decide, and a torch twin.
#pragma once

#include "free/block.h"
#include "free/outcome.h"
#include "free/platform.h"
#include "free/reflection.h"

namespace free_dit {

enum class Verifier { kReflection, kBlock };

/// In the order of the enumeration.
constexpr const char* kVerifierNames[] = {"reflection", "block"};

/// The decide phase: which drafts of a sample's window stand, and what the next state is.
template <class Transitions>
FREE_HOST_DEVICE Outcome decide(Verifier verifier, int drafts, const Transitions& transitions,
                                const float* sigmas, const float* uniforms, float* log_ratios) {
  switch (verifier) {
    case Verifier::kBlock:
      return decide_block(drafts, transitions, sigmas, uniforms, log_ratios);
    case Verifier::kReflection:
      break;
  }
  return decide_reflection(drafts, transitions, sigmas, uniforms, log_ratios);
}

}  // namespace free_dit
