// SPDX-License-Identifier: Apache-2.0
// Bounds of values, and refusing those that a kernel on the CPU would index or decide with, in the
// words of all errors.
#pragma once

#include <cstdint>
#include <limits>
#include <stdexcept>
#include <string>

namespace free_dit {

constexpr double kInfinite = std::numeric_limits<double>::infinity();
constexpr double kLargest = std::numeric_limits<double>::max();
constexpr double kLargestFloat = std::numeric_limits<float>::max();

template <class T>
[[noreturn]] void refuse(const char* name, const std::string& expected, T got,
                         const std::string& where) {
  throw std::invalid_argument(name + (": expected " + expected + ", got ") + std::to_string(got) +
                              " for " + where);
}

inline std::string range(std::int64_t low, std::int64_t high) {
  return "values in " + std::to_string(low) + ".." + std::to_string(high);
}

inline std::string at(const char* what, std::int64_t index) {
  return std::string(what) + " " + std::to_string(index);
}

inline void check_integers(const char* name, const std::int64_t* values, std::int64_t count,
                           std::int64_t high, const char* what) {
  for (std::int64_t i = 0; i < count; ++i) {
    if (values[i] < 0 || values[i] > high) {
      refuse(name, range(0, high), values[i], at(what, i));
    }
  }
}

}  // namespace free_dit
