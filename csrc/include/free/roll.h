// SPDX-License-Identifier: Apache-2.0
// One element of one transition whose mean is affine in the state, in what is guessed of the
// network's prediction (the image that it tells, where it tells one), and in the guess before.
// nvcc may fuse the products into the sums: CPU and GPU agree to rounding.
#pragma once

#include <cstdint>

#include "free/platform.h"

namespace free_dit {

/// What is said of a transition, from which its guess is made.
enum class Said {
  kGuess,       ///< the guess itself
  kChange,      ///< by how much it differs from the guess before
  kPrediction,  ///< what the network predicts at the state that the drafter was asked about
  kIntercept,   ///< the guess at state 0; it follows the state
};

/// What a drafter may say.
constexpr const char* kSaidNames[] = {"guess", "change", "prediction"};

/// The first `settled` transitions of a window have an intercept; the drafter says the others.
FREE_HOST_DEVICE Said said_of(std::int64_t transition, std::int64_t settled, Said drafter) {
  return transition < settled ? Said::kIntercept : drafter;
}

struct Coefficients {
  float a;      ///< of the state
  float b;      ///< of the guess
  float c;      ///< of the guess of the transition before
  float sigma;  ///< of the noise
  float p;      ///< of the state in a guess, p state + q prediction
  float q;
};

constexpr std::int64_t kCoefficients = 6;

/// Columns of a schedule: the coefficients, then the largest response of a guess to its state, and
/// how much of a guidance counts.
enum Column : std::int64_t { kLargestResponse = kCoefficients, kGuided };

/// Those of entry i of columns that are `count` entries apart.
FREE_HOST_DEVICE Coefficients coefficients_at(const float* columns, std::int64_t count,
                                              std::int64_t i) {
  return {columns[i],
          columns[count + i],
          columns[2 * count + i],
          columns[3 * count + i],
          columns[4 * count + i],
          columns[5 * count + i]};
}

/// A guess within [-clip, clip], a NaN as it is.
FREE_HOST_DEVICE float clipped(float guess, float clip) {
  return guess < -clip ? -clip : guess > clip ? clip : guess;
}

/// The guess that a prediction is at a state.
FREE_HOST_DEVICE float told(const Coefficients& c, float state, float prediction, float clip) {
  return clipped(c.p * state + c.q * prediction, clip);
}

/// `asked` is the state that the drafter saw, `last` the guess of the transition before.
FREE_HOST_DEVICE float guess_of(Said what, float said, float slope, float state, float last,
                                float asked, const Coefficients& c, float clip) {
  return what == Said::kPrediction  ? told(c, asked, said, clip)
         : what == Said::kIntercept ? clipped(said + slope * state, clip)
         : what == Said::kChange    ? clipped(said + last, clip)
                                    : clipped(said, clip);
}

/// The mean of a transition, without what the one before adds.
FREE_HOST_DEVICE float own_mean(const Coefficients& c, float state, float guess) {
  return c.a * state + c.b * guess;
}

/// The mean of a transition; `last` is the guess of the one before.
FREE_HOST_DEVICE float mean_of(const Coefficients& c, float state, float guess, float last) {
  const float mean = own_mean(c, state, guess);
  return c.c == 0.0f ? mean : mean + c.c * last;
}

struct Rolled {
  float mean;
  float state;  ///< the next one
};

FREE_HOST_DEVICE Rolled roll(const Coefficients& c, float state, float guess, float last,
                             float noise) {
  const float mean = mean_of(c, state, guess, last);
  return {mean, mean + c.sigma * noise};
}

}  // namespace free_dit
