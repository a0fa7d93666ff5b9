// SPDX-License-Identifier: Apache-2.0
// One element of one transition whose mean is affine in the state and in a guess of what the
// network predicts. nvcc may fuse the products into the sums: CPU and GPU agree to rounding.
#pragma once

#include "free/platform.h"

namespace free_dit {

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
