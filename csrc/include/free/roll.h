// SPDX-License-Identifier: Apache-2.0
// One element of one transition whose mean is affine in the state and in a guess of what the
// network predicts. nvcc may fuse the products into the sums: CPU and GPU agree to rounding.
#pragma once

#include <cstdint>

#include "free/platform.h"

namespace free_dit {

/// What is said of a transition, from which its guess is made.
enum class Said {
  kIntercept,  ///< the guess at state 0; it follows the state
  kGuess,      ///< the guess itself
  kChange,     ///< by how much it differs from the guess before
};

/// The first `settled` transitions of a window have an intercept; the drafter says the others.
FREE_HOST_DEVICE Said said_of(std::int64_t transition, std::int64_t settled, bool adds) {
  return transition < settled ? Said::kIntercept : adds ? Said::kChange : Said::kGuess;
}

FREE_HOST_DEVICE float guess_of(Said what, float said, float slope, float state, float last) {
  return what == Said::kIntercept ? said + slope * state
         : what == Said::kChange  ? said + last
                                  : said;
}

struct Coefficients {
  float a;      ///< of the state
  float b;      ///< of the guess
  float sigma;  ///< of the noise
};

struct Rolled {
  float mean;
  float state;  ///< the next one
};

FREE_HOST_DEVICE Rolled roll(const Coefficients& c, float state, float guess, float noise) {
  const float mean = c.a * state + c.b * guess;
  return {mean, mean + c.sigma * noise};
}

}  // namespace free_dit
