// SPDX-License-Identifier: Apache-2.0
// One element of one transition whose mean is affine in the state and in a guess of what the
// network predicts. nvcc may fuse the products into the sums: CPU and GPU agree to rounding.
#pragma once

#include <cstdint>

#include "free/image.h"
#include "free/platform.h"

namespace free_dit {

/// What is said of a transition, from which its guess is made.
enum class Said {
  kGuess,      ///< the guess itself
  kChange,     ///< by how much it differs from the guess before
  kEps,        ///< eps at the state that the drafter was asked about; the guess is an image
  kIntercept,  ///< the guess at state 0; it follows the state
};

/// What a drafter may say.
constexpr const char* kSaidNames[] = {"guess", "change", "eps"};

/// The first `settled` transitions of a window have an intercept; the drafter says the others.
FREE_HOST_DEVICE Said said_of(std::int64_t transition, std::int64_t settled, Said drafter) {
  return transition < settled ? Said::kIntercept : drafter;
}

struct Coefficients {
  float a;       ///< of the state
  float b;       ///< of the guess
  float sigma;   ///< of the noise
  float signal;  ///< of the state: state = signal x0 + noise eps
  float noise;
};

constexpr std::int64_t kCoefficients = 5;

/// Those of entry i of columns that are `count` entries apart.
FREE_HOST_DEVICE Coefficients coefficients_at(const float* columns, std::int64_t count,
                                              std::int64_t i) {
  return {columns[i], columns[count + i], columns[2 * count + i], columns[3 * count + i],
          columns[4 * count + i]};
}

/// `asked` is the state that the drafter saw, `last` the guess of the transition before.
FREE_HOST_DEVICE float guess_of(Said what, float said, float slope, float state, float last,
                                float asked, const Coefficients& c) {
  return what == Said::kIntercept ? said + slope * state
         : what == Said::kChange  ? said + last
         : what == Said::kEps     ? image_of(asked, said, c.signal, c.noise)
                                  : said;
}

struct Rolled {
  float mean;
  float state;  ///< the next one
};

FREE_HOST_DEVICE Rolled roll(const Coefficients& c, float state, float guess, float noise) {
  const float mean = c.a * state + c.b * guess;
  return {mean, mean + c.sigma * noise};
}

}  // namespace free_dit
