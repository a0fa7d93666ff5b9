// SPDX-License-Identifier: Apache-2.0
// Bounds of values, and refusing those that a kernel on the CPU would index or decide with, in the
// words of all errors.
#pragma once

#include <algorithm>
#include <cstdint>
#include <limits>
#include <stdexcept>
#include <string>

namespace free_dit {

constexpr double kInfinite = std::numeric_limits<double>::infinity();
constexpr double kLargest = std::numeric_limits<double>::max();
constexpr double kLargestFloat = std::numeric_limits<float>::max();

/// Refuses the first value that does not fit, if there is one. `place` is what it is of; within a
/// sample, where `sample` is not negative. The first value is numbered `from`.
template <class T, class Fits, class Expected>
void check_values(const char* name, const T* values, std::int64_t count, Fits fits,
                  Expected expected, const char* place, std::int64_t sample = -1,
                  std::int64_t from = 0) {
  const T* const wrong = std::find_if_not(values, values + count, fits);
  if (wrong != values + count) {
    const std::string of = sample < 0 ? "" : "sample " + std::to_string(sample) + ", ";
    throw std::invalid_argument(name + (": expected " + expected()) + ", got " +
                                std::to_string(*wrong) + " for " + of + place + " " +
                                std::to_string(wrong - values + from));
  }
}

template <class T>
void check_integers(const char* name, const T* values, std::int64_t count, std::int64_t high,
                    const char* place, std::int64_t low = 0, std::int64_t sample = -1,
                    std::int64_t from = 0) {
  check_values(
      name, values, count, [=](T value) { return value >= low && value <= high; },
      [=] { return "values in " + std::to_string(low) + ".." + std::to_string(high); }, place,
      sample, from);
}

}  // namespace free_dit
