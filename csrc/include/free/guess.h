// SPDX-License-Identifier: Apache-2.0
// What a window is guessed to be before the drafter is asked: the decisions about a transition.
#pragma once

#include <cstdint>

#include "free/platform.h"

namespace free_dit {

/// Where a window's first guesses come from: the places in free.reference.draft.SOURCES.
enum class Source : std::int64_t { kResponse, kReuse, kDrafter };

/// Of `count` things, the one nearest to number at + ahead.
FREE_HOST_DEVICE std::int64_t nearest(std::int64_t at, std::int64_t ahead, std::int64_t count) {
  return at < -ahead ? 0 : at > count - 1 - ahead ? count - 1 : at + ahead;
}

/// By how much the teacher's prediction follows its state, within 0 and the largest response; NaN
/// if an argument is.
FREE_HOST_DEVICE float response_of(float dot, float square, float largest) {
  constexpr float kLeastSquare = 1e-12f;
  const float measured = dot / (square < kLeastSquare ? kLeastSquare : square);
  const float response = measured < 0.0f ? 0.0f : measured;
  return response > largest || largest != largest ? largest : response;
}

/// Whether the guess of a window's transition follows its state: the teacher has seen it, and the
/// source says so. `known` counts the transition before the window, too.
FREE_HOST_DEVICE bool follows(std::int64_t transition, std::int64_t known, Source source) {
  return source == Source::kResponse && transition + 1 < known;
}

/// The guess at state 0 of what has been said of x_old.
FREE_HOST_DEVICE float intercept_of(float said, float slope, float x_old) {
  return said - slope * x_old;
}

/// How many transitions of a window the drafter has no say in, 0 or more whatever `known` is.
FREE_HOST_DEVICE std::int64_t settled_of(std::int64_t known, Source source) {
  return source == Source::kDrafter || known < 1 ? 0 : known - 1;
}

}  // namespace free_dit
