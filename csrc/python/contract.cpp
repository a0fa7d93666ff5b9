// SPDX-License-Identifier: Apache-2.0
#include "contract.h"

#include <cctype>
#include <sstream>

namespace free_dit {
namespace {

// "W-1", "B*K", "4".
Axis parsed(const std::string& text) {
  Axis axis;
  std::size_t at = 0;
  if (text.size() > 1 && text[1] == '*') {
    axis.times = text[0];
    at = 2;
  }
  if (std::isalpha(static_cast<unsigned char>(text[at])) != 0) {
    axis.letter = text[at++];
  }
  axis.plus = at < text.size() ? std::stoll(text.substr(at)) : 0;
  return axis;
}

}  // namespace

Shape::Shape(const char* given) : text(given) {
  std::istringstream words(text);
  for (std::string word; words >> word;) {
    if (word == ">") {
      filled = true;
      break;
    }
    if (word[0] == '.') {
      rest = word == "..." ? Rest::kSome : Rest::kAny;
    } else if (word.find(">=") == 1) {
      axes.push_back(parsed(word.substr(3)));
      axes.back().open = word[0];
    } else {
      axes.push_back(parsed(word));
    }
  }
}

std::int64_t Sizes::value(const Axis& axis) {
  const std::int64_t value = (axis.letter == 0 ? 0 : of(axis.letter)) + axis.plus;
  return axis.times == 0 ? value : of(axis.times) * value;
}

bool Sizes::fits(const Axis& axis, std::int64_t extent) {
  if (axis.open != 0) {
    std::int64_t& open = of(axis.open);
    const bool fits = extent >= value(axis) && (open < 0 || open == extent);
    open = extent;
    return fits;
  }
  if (axis.letter != 0 && of(axis.letter) < 0) {
    const std::int64_t each = axis.times == 0 ? 1 : of(axis.times);
    if (each <= 0 || extent % each != 0) {
      return false;
    }
    of(axis.letter) = extent / each - axis.plus;
    return of(axis.letter) >= 0;
  }
  return value(axis) == extent;
}

bool Sizes::fits(const Shape& shape, const std::int64_t* extents, int axes) {
  const int fixed = static_cast<int>(shape.axes.size());
  const int others = axes - fixed;
  if (others < (shape.rest == Shape::Rest::kSome ? 1 : 0) ||
      (shape.rest == Shape::Rest::kNone && others > 0)) {
    return false;
  }
  for (int i = 0; i < fixed; ++i) {
    if (!fits(shape.axes[static_cast<std::size_t>(i)], extents[i])) {
      return false;
    }
  }
  if (shape.rest != Shape::Rest::kNone) {
    if (rest_axes < 0) {
      rest = extents + fixed;
      rest_axes = others;
    }
    if (others != rest_axes) {
      return false;
    }
    for (int i = 0; i < others; ++i) {
      if (extents[fixed + i] != rest[i]) {
        return false;
      }
    }
  }
  for (int i = 0; shape.filled && i < axes; ++i) {
    if (extents[i] == 0) {
      return false;
    }
  }
  return true;
}

std::vector<std::int64_t> Sizes::extents(const Shape& shape) {
  std::vector<std::int64_t> extents;
  for (const Axis& axis : shape.axes) {
    extents.push_back(value(axis));
  }
  if (shape.rest != Shape::Rest::kNone) {
    extents.insert(extents.end(), rest, rest + rest_axes);
  }
  return extents;
}

std::int64_t Sizes::count(const Shape& shape) {
  std::int64_t count = 1;
  for (const std::int64_t extent : extents(shape)) {
    count *= extent;
  }
  return count;
}

}  // namespace free_dit
