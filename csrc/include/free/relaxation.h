// SPDX-License-Identifier: Apache-2.0
// Reflection with a more lenient test where the teacher is unsure, and what that does to the law
// (docs/relaxation.md).
//
// With a = min(1, e^r) the exact probability to keep a draft and a' >= a the relaxed one, a run
// parts from the exact run with the same noises and uniforms with probability a' - a at each
// examined draft. The sum of these over a run is what a sample spends; a budget limits it.
//
// The law of the next state gets the density a' / a relative to the target where the draft is the
// likelier of the two (r < 0), and 1 - (a' - a) at the mirror image, where r changes its sign.
#pragma once

#include <cmath>

#include "free/outcome.h"
#include "free/platform.h"
#include "free/reflection.h"
#include "free/transition.h"

namespace free_dit {

enum class Rule { kTemper, kAllow };

/// In the order of the enumeration.
constexpr const char* kRuleNames[] = {"temper", "allow"};

struct Relaxation {
  Rule rule;
  double strength;  ///< >= 0
  double budget;    ///< of the sum of a' - a over a sample's run; infinite for none
};

/// The rule: the log ratio r' >= r that is tested in place of r, slack = strength * uncertainty.
/// What the target prefers, r >= 0, stands as it is, and so does what it never does, r = -infinity,
/// however large the slack; a slack that is not positive changes nothing.
FREE_HOST_DEVICE double relaxed_log_ratio(Rule rule, double ratio, double slack) {
  if (!(ratio < 0.0) || std::isinf(ratio) || !(slack > 0.0)) {
    return ratio;
  }
  if (rule == Rule::kTemper) {
    return ratio / (1.0 + slack);
  }
  return ratio + slack < 0.0 ? ratio + slack : 0.0;
}

/// a' - a = e^r' - e^r for r < 0; 0 where nothing is relaxed.
FREE_HOST_DEVICE double acceptance_gain(double ratio, double relaxed) {
  return relaxed > ratio ? -std::exp(relaxed) * std::expm1(ratio - relaxed) : 0.0;
}

/// |Delta|, the drafter's error as an uncertainty; 0 where there is nothing to relax.
FREE_HOST_DEVICE double discrepancy(const Transition& t) {
  return is_finite(t) && t.sigma > 0.0f ? std::sqrt(t.shift_sq) / t.sigma : 0.0;
}

/// Of one sample's run.
struct Account {
  double spent;           ///< sum of a' - a over the examined drafts
  double log_likelihood;  ///< log of the relaxed law's density over the exact one's
};

/// decide_reflection with the relaxed ratio, as long as the sample can pay for it.
///
/// @param uncertainty [drafts], or null for the discrepancy
/// @param account the examined drafts are added
template <class Transitions>
FREE_HOST_DEVICE Outcome decide_relaxed(const Relaxation& how, int drafts,
                                        const Transitions& transitions, const float* sigmas,
                                        const float* uniforms, const float* uncertainty,
                                        Account* account, float* log_ratios) {
  struct Test {
    const Relaxation& how;
    const float* uniforms;
    const float* uncertainty;
    Account* account;

    FREE_HOST_DEVICE bool operator()(int j, const Transition& t, double ratio) const {
      const double u = uncertainty != nullptr ? uncertainty[j] : discrepancy(t);
      // Of the draft or its mirror image, whichever the target likes less.
      const double low = ratio < 0.0 ? ratio : -ratio;
      const double relaxed = relaxed_log_ratio(how.rule, low, how.strength * u);
      const double gain = acceptance_gain(low, relaxed);
      const double sum = account->spent + gain;
      if (same_mean(t) || !(gain > 0.0) || !(sum <= how.budget)) {
        return reflection_accepts(t, ratio, uniforms[j]);
      }
      if (ratio >= 0.0) {
        account->log_likelihood += std::log1p(-gain);
        return true;
      }
      account->spent = sum;
      const bool accepts = reflection_accepts(t, relaxed, uniforms[j]);
      account->log_likelihood += accepts ? relaxed - ratio : std::log1p(-gain);
      return accepts;
    }
  };
  return decide_one_by_one(drafts, transitions, sigmas, log_ratios,
                           Test{how, uniforms, uncertainty, account});
}

}  // namespace free_dit
